"""Save and load a checkpoint: a Hugging Face directory, written aside and renamed into place, read strictly.

It moves tensors and files. What they are called is `model.convert`'s knowledge; what a directory says of itself is
`model.directory`'s.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.classifier import GPTClassifier
from model.convert import PublicTensor, canonical_name, is_ignored, public_tensors
from model.directory import (
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    weight_files,
)
from model.gpt import GPT, make_rotary_table
from model.public_config import architecture, config_to_public
from model.tokenizer import Tokenizer

ModelT = TypeVar("ModelT", GPT, GPTClassifier)


def save_checkpoint(
    path: Path | str,
    model: GPT | GPTClassifier,
    tokenizer: Tokenizer,
    *,
    model_card: str,
    chat_template: str | None = None,
    labels: Sequence[str] | None = None,
    eos_token_ids: Sequence[int] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    dtype: torch.dtype | None = None,
) -> Checkpoint:
    """Write a checkpoint directory that transformers, vLLM, llama.cpp and our own server load as is.

    Everything is written beside `path` first and renamed into place at the end, so that `path` holds a whole
    checkpoint, the old one or the new one, or nothing.

    Args:
        path: the directory to make; an older checkpoint there is replaced, anything else is left alone.
        model: a language model, or a classifier with its `labels`.
        tokenizer: its vocabulary must fit the model's.
        model_card: text of README.md.
        chat_template: Jinja source; its presence makes a language model a chat model.
        labels: names of a classifier's outputs, by index.
        eos_token_ids: ids that end a generated sequence; None takes the tokenizer's end token.
        extra_files: more files by name, for example a loss plot or the run's settings.
        dtype: store weights in this type; None keeps the model's.

    Raises:
        CheckpointError: labels or vocabulary do not fit, `path` holds something else, or writing failed.
    """
    path = Path(path)
    num_labels = model.num_labels if isinstance(model, GPTClassifier) else None
    _check_fit(path, model, tokenizer, labels, num_labels)
    weights = export_tensors(model, num_labels=num_labels, dtype=dtype)
    eos = list(eos_token_ids if eos_token_ids is not None else [tokenizer.eos_id])
    special = {"bos_token_id": tokenizer.eos_id, "eos_token_id": eos, "pad_token_id": tokenizer.pad_id}
    public = {
        "architectures": [architecture(model.config, is_classifier=num_labels is not None)],
        **config_to_public(model.config),
        **special,
        "eos_token_id": eos[0] if eos else None,
        "dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
    }
    files: dict[str, bytes] = {**tokenizer.files(), "README.md": model_card.encode(), **(extra_files or {})}
    if labels is not None:
        public["id2label"] = {str(i): label for i, label in enumerate(labels)}
        public["label2id"] = {label: i for i, label in enumerate(labels)}
    else:
        files[GENERATION_CONFIG_FILE] = _to_json(special)
    if chat_template is not None:
        files[CHAT_TEMPLATE_FILE] = chat_template.encode()
    files[CONFIG_FILE] = _to_json(public)
    with _written_aside(path) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)
        save_file(weights, aside / WEIGHTS_FILE, metadata={"format": "pt"})
        shutil.copymode(aside / CONFIG_FILE, aside / WEIGHTS_FILE)  # safetensors makes it readable by its owner only
    return read_checkpoint(path)


def load_gpt(path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GPT:
    """Load the language model of a checkpoint directory, ready for inference.

    Raises:
        CheckpointError: a file or a tensor is missing, extra, damaged or of the wrong shape; the message names it.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.kind == "classifier":
        raise CheckpointError(f"{path}: holds a classifier, not a language model")
    return _load(checkpoint, lambda: GPT(checkpoint.config), None, device, dtype)


def load_classifier(
    path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> GPTClassifier:
    """Load the classifier of a checkpoint directory, ready for inference.

    Raises:
        CheckpointError: as for `load_gpt`, or the directory holds a language model.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.kind != "classifier":
        raise CheckpointError(f"{path}: holds a language model, not a classifier")
    num_labels = len(checkpoint.labels)
    return _load(checkpoint, lambda: GPTClassifier(checkpoint.config, num_labels), num_labels, device, dtype)


def export_tensors(
    model: GPT | GPTClassifier, *, num_labels: int | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A model's weights under their public names, in public layout, on the CPU."""
    parameters = dict(model.named_parameters())
    tensors = {}
    for public in public_tensors(model.config, num_labels=num_labels):
        view = _place(parameters[public.name].detach(), public)
        tensors[public.public_name] = view.to("cpu", dtype or view.dtype).contiguous().clone()
    return tensors


def _load(
    checkpoint: Checkpoint,
    make_model: Callable[[], ModelT],
    num_labels: int | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> ModelT:
    with torch.device("meta"):  # no memory, no random numbers: every value comes from the file
        model = make_model()
    model = model.to(dtype).to_empty(device=device)
    body = model.gpt if isinstance(model, GPTClassifier) else model
    if checkpoint.config.family == "llama":
        body.rotary_table = make_rotary_table(checkpoint.config).to(device)
    if isinstance(model, GPT) and checkpoint.config.tie_embeddings:
        model.lm_head.weight = model.wte.weight
    parameters = dict(model.named_parameters())
    wanted = {public.public_name: public for public in public_tensors(checkpoint.config, num_labels=num_labels)}
    has_own_head = num_labels is None and not checkpoint.config.tie_embeddings
    for file, name, tensor in _stored_tensors(checkpoint, has_own_head=has_own_head):
        public = wanted.pop(name, None)
        if public is None:
            raise CheckpointError(f"{file}: tensor {name!r} does not belong to this model")
        if tuple(tensor.shape) != public.shape:
            found, asked = list(tensor.shape), list(public.shape)
            raise CheckpointError(f"{file}: tensor {name!r} has shape {found}, but {CONFIG_FILE} asks for {asked}")
        with torch.no_grad():
            _place(parameters[public.name], public).copy_(tensor)
    if wanted:
        raise CheckpointError(f"{checkpoint.path}: tensor {next(iter(wanted))!r} is missing from the weights")
    return model.eval()


def _stored_tensors(checkpoint: Checkpoint, *, has_own_head: bool) -> Iterator[tuple[Path, str, Tensor]]:
    """Every tensor of the weight files under its public name, one at a time to spare memory."""
    for file in weight_files(checkpoint.path):
        try:
            with safe_open(file, framework="pt") as stored:
                for stored_name in stored.keys():  # noqa: SIM118 - not a mapping
                    name = canonical_name(stored_name, checkpoint.config)
                    if not is_ignored(name) and (has_own_head or name != "lm_head.weight"):
                        yield file, name, stored.get_tensor(stored_name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a whole safetensors file ({error}); fetch or write it again") from None


def _place(parameter: Tensor, public: PublicTensor) -> Tensor:
    """The part of our parameter that a public tensor is, as a view in the public layout."""
    rows = public.shape[1] if public.is_transposed else public.shape[0]
    part = parameter.narrow(0, public.first_row, rows)
    return part.T if public.is_transposed else part


def _check_fit(
    path: Path,
    model: GPT | GPTClassifier,
    tokenizer: Tokenizer,
    labels: Sequence[str] | None,
    num_labels: int | None,
) -> None:
    if (labels is None) != (num_labels is None) or (labels is not None and len(labels) != num_labels):
        raise CheckpointError(f"labels: {labels!r} do not fit a model with {num_labels} label outputs")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} tokens but the model only {model.config.vocab_size}"
        )
    if path.exists() and not (path / CONFIG_FILE).exists() and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: exists and is not a checkpoint; choose another place or remove it yourself")


@contextmanager
def _written_aside(path: Path) -> Iterator[Path]:
    """Yield a fresh directory that takes the place of `path` when the block ends well and vanishes when it does not."""
    aside = path.with_name(f".{path.name}.new-{os.getpid()}")
    replaced = path.with_name(f".{path.name}.old-{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for file in aside.iterdir():
            _sync(file)
        _sync(aside)
        if path.exists():
            path.rename(replaced)
        aside.rename(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}; what was there before is kept") from error
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
