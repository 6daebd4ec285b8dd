"""Save and load a checkpoint: a Hugging Face directory, written whole or not at all, read strictly.

What tensors are called is `model.convert`'s knowledge, how files hold them `model.tensor_files`', how a directory takes
the place of another `model.replace`'s, and what a directory says of itself `model.directory`'s.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.adapter import adapter_files, load_adapter
from model.adapter_config import AdapterConfig
from model.adapter_directory import StoredAdapter, read_adapter
from model.classifier import GPTClassifier
from model.convert import PublicTensor, canonical_name, is_ignored, public_tensors
from model.directory import (
    ADAPTER_FOLDER,
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    MULTI_LABEL,
    SINGLE_LABEL,
    Checkpoint,
    CheckpointError,
    is_adapter,
    read_checkpoint,
    weight_files,
)
from model.gpt import GPT, make_rotary_table
from model.lora import LoRALinear, cast_weights, has_lora, merge_lora
from model.public_config import architecture, config_to_public
from model.replace import written_aside
from model.tensor_files import SHARD_BYTES, NamedTensor, copy_mapped, mapped_safetensors, write_tensors
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
    is_multi_label: bool = False,
    eos_token_ids: Sequence[int] | None = None,
    adapter: AdapterConfig | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Checkpoint:
    """Write a checkpoint directory that transformers, vLLM, llama.cpp and our own server load as is.

    Everything is written beside `path` first and renamed into place at the end, so that `path` holds a whole
    checkpoint, the old one or the new one, or nothing.

    Args:
        path: the directory to make; an older checkpoint there is replaced, anything else is left alone.
        model: a language model, or a classifier with its `labels`. One with LoRA is written merged.
        tokenizer: its vocabulary must fit the model's.
        model_card: text of README.md.
        chat_template: Jinja source; its presence makes a language model a chat model.
        labels: names of a classifier's outputs, by index.
        is_multi_label: whether a text has any number of the labels, instead of exactly one.
        eos_token_ids: ids that end a generated sequence; None takes the tokenizer's end token.
        adapter: what the updates of a model with LoRA are; they are written as a directory of PEFT inside.
        extra_files: more files by name, for example a loss plot or the run's settings.
        dtype: store weights in this type; None keeps the model's, or float32 where LoRA is merged into less.
        shard_bytes: size above which weights go into several files.

    Raises:
        CheckpointError: labels or vocabulary do not fit, `path` holds something else, or writing failed.
    """
    path = Path(path)
    num_labels = model.num_labels if isinstance(model, GPTClassifier) else None
    _check_fit(path, model, tokenizer, labels, num_labels)
    assert has_lora(model) == (adapter is not None), "the updates of a model need their description"
    dtype = dtype or _own_dtype(model)
    eos = list(eos_token_ids if eos_token_ids is not None else [tokenizer.eos_id])
    bos = tokenizer.bos_ids[0] if tokenizer.bos_ids else tokenizer.eos_id
    special = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": tokenizer.pad_id}
    public = {
        "architectures": [architecture(model.config, is_classifier=num_labels is not None)],
        **config_to_public(model.config),
        **special,
        "eos_token_id": eos[0] if eos else None,
        "dtype": str(dtype).removeprefix("torch."),
    }
    files: dict[str, bytes] = {**tokenizer.files(), "README.md": model_card.encode(), **(extra_files or {})}
    if labels is not None:
        public["id2label"] = {str(i): label for i, label in enumerate(labels)}
        public["label2id"] = {label: i for i, label in enumerate(labels)}
        public["problem_type"] = MULTI_LABEL if is_multi_label else SINGLE_LABEL
    else:
        files[GENERATION_CONFIG_FILE] = _to_json(special)
    if chat_template is not None:
        files[CHAT_TEMPLATE_FILE] = chat_template.encode()
    files[CONFIG_FILE] = _to_json(public)
    if adapter is not None:  # with all that its base may not know: head, template, tokens
        described = (*tokenizer.files(), CONFIG_FILE, GENERATION_CONFIG_FILE, CHAT_TEMPLATE_FILE)
        inside = {name: files[name] for name in described if name in files} | adapter_files(model, adapter)
        files |= {f"{ADAPTER_FOLDER}/{name}": content for name, content in inside.items()}
    try:
        with written_aside(path) as aside:
            for name, content in files.items():
                (aside / name).parent.mkdir(exist_ok=True)
                (aside / name).write_bytes(content)
            write_tensors(aside, list(_merged_tensors(model, dtype)), shard_bytes=shard_bytes)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error}; what was there before is kept") from error
    return read_checkpoint(path)


def load_gpt(path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GPT:
    """Load the language model of a checkpoint directory, ready for inference.

    Raises:
        CheckpointError: a file or a tensor is missing, extra, damaged or of the wrong shape; the message names it.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.kind == "classifier":
        raise CheckpointError(f"{path}: holds a classifier, not a language model")
    if is_adapter(checkpoint.path):
        return _load_from_base(checkpoint, GPT, device, dtype)
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
    if is_adapter(checkpoint.path):
        return _load_from_base(checkpoint, GPTClassifier, device, dtype)
    num_labels = len(checkpoint.labels)
    return _load(checkpoint, lambda: GPTClassifier(checkpoint.config, num_labels), num_labels, device, dtype)


def load_merged(stored: StoredAdapter, base: Path | str) -> GPT | GPTClassifier:
    """Load a base in float32 with an adapter merged into it.

    Raises:
        CheckpointError: the base cannot be loaded, or the adapter was made for another.
    """
    found, num_labels = read_checkpoint(base), stored.num_labels
    if num_labels is None and found.kind == "classifier":
        raise CheckpointError(f"{base}: holds a classifier, but {stored.path} was made for a language model")
    model: GPT | GPTClassifier = load_classifier(base) if found.kind == "classifier" else load_gpt(base)
    if num_labels is not None:
        body = model
        model = empty(lambda: GPTClassifier(found.config, num_labels))
        if isinstance(body, GPT):
            del body.lm_head
        model.gpt = body.gpt if isinstance(body, GPTClassifier) else body
    load_adapter(model, stored)
    merge_lora(model)
    return model


def public_views(model: GPT | GPTClassifier) -> Iterator[tuple[str, Tensor]]:
    """A model's weights under their public names, in public layout: views that share its memory, without LoRA."""
    parameters = dict(model.named_parameters())
    num_labels = model.num_labels if isinstance(model, GPTClassifier) else None
    for public in public_tensors(model.config, num_labels=num_labels):
        yield public.public_name, _place(parameters[public.name].detach(), public)


def fill(
    model: ModelT, source: Path, table: Iterable[PublicTensor], stored: Iterable[tuple[Path, str, Tensor]]
) -> ModelT:
    """Copy every tensor of the mapped files of `source` to its place.

    Raises:
        CheckpointError: a tensor is missing, extra or of the wrong shape.
    """
    parameters = dict(model.named_parameters())
    wanted = {public.public_name: public for public in table}
    for file, name, tensor in stored:
        public = wanted.pop(name, None)
        if public is None:
            raise CheckpointError(f"{file}: tensor {name!r} does not belong to this model")
        if tuple(tensor.shape) != public.shape:
            found, asked = list(tensor.shape), list(public.shape)
            raise CheckpointError(f"{file}: tensor {name!r} has shape {found}, but {CONFIG_FILE} asks for {asked}")
        copy_mapped(_place(parameters[public.name], public), tensor)
    if wanted:
        raise CheckpointError(f"{source}: tensor {next(iter(wanted))!r} is missing from the weights")
    return model


def empty(
    make_model: Callable[[], ModelT], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ModelT:
    """Make a model whose weights take no memory and no random numbers before they are filled."""
    with torch.device("meta"):
        model = make_model()
    model = model.to(dtype).to_empty(device=device).eval()
    body = model.gpt if isinstance(model, GPTClassifier) else model
    if body.config.family == "llama":
        body.rotary_table = make_rotary_table(body.config).to(device)
    if isinstance(model, GPT) and model.config.tie_embeddings:
        model.lm_head.weight = model.wte.weight
    return model


def _load(
    checkpoint: Checkpoint,
    make_model: Callable[[], ModelT],
    num_labels: int | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> ModelT:
    model = empty(make_model, device=device, dtype=dtype)
    table = public_tensors(checkpoint.config, num_labels=num_labels)
    return fill(model, checkpoint.path, table, _stored(checkpoint, num_labels))


def _load_from_base(
    checkpoint: Checkpoint, kind: type[ModelT], device: torch.device | str, dtype: torch.dtype
) -> ModelT:
    stored = read_adapter(checkpoint.path)
    base = stored.config.base
    if base is None or not Path(base).is_dir():
        raise CheckpointError(
            f"{stored.path}: its base {base or '(not named)'} is no directory here; "
            f"name it: groundup merge {stored.path} --base BASE --out OUT"
        )
    model = load_merged(stored, base)
    if not isinstance(model, kind):
        raise CheckpointError(f"{stored.weights}: does not hold what {CONFIG_FILE} beside it says")
    cast_weights(model, dtype)
    return model.to(device).eval()


def _stored(checkpoint: Checkpoint, num_labels: int | None) -> Iterator[tuple[Path, str, Tensor]]:
    """Every tensor of the weight files under its full public name, without the constants that old writers stored."""
    has_own_head = num_labels is None and not checkpoint.config.tie_embeddings
    for file in weight_files(checkpoint.path):
        for stored_name, tensor in mapped_safetensors(file):
            name = canonical_name(stored_name, checkpoint.config)
            if not is_ignored(name) and (has_own_head or name != "lm_head.weight"):
                yield file, name, tensor


def _place(parameter: Tensor, public: PublicTensor) -> Tensor:
    """The part of our parameter that a public tensor is, as a view in the public layout."""
    rows = public.shape[1] if public.is_transposed else public.shape[0]
    part = parameter.narrow(0, public.first_row, rows)
    return part.T if public.is_transposed else part


def _merged_tensors(model: GPT | GPTClassifier, dtype: torch.dtype) -> Iterator[NamedTensor]:
    """A model's weights to write; merged matrices are made one at a time, when their turn comes."""
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}
    num_labels = model.num_labels if isinstance(model, GPTClassifier) else None
    table = public_tensors(model.config, num_labels=num_labels)
    for public, (name, view) in zip(table, public_views(model), strict=True):
        layer = layers.get(public.name)
        make = None if layer is None else functools.partial(_merged, layer, public)
        yield NamedTensor(name, view, dtype, make)


def _merged(layer: LoRALinear, public: PublicTensor) -> Tensor:
    return _place(layer.merged_weight(), public)


def _own_dtype(model: GPT | GPTClassifier) -> torch.dtype:
    own = next(model.parameters()).dtype
    return torch.promote_types(own, torch.float32) if has_lora(model) else own


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


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
