"""Adapters in files: the directories of PEFT, `adapter_config.json` beside `adapter_model.safetensors`.

An adapter fits one base only. Its file remembers digests of the base's weights, where PEFT would not look; an adapter
without them is held to names and shapes. What the weights do is `model.lora`'s knowledge.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.adapter_config import AdapterConfig
from model.classifier import GPTClassifier
from model.convert import canonical_name, public_tensors
from model.directory import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CheckpointError, read_json
from model.gpt import GPT
from model.lora import LoRALinear, add_lora
from model.tensor_files import NamedTensor, copy_mapped, mapped_safetensors, pieces, write_safetensors

PREFIX = "base_model.model."
"""What PEFT puts before the public names."""


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter directory, described."""

    path: Path
    config: AdapterConfig
    num_labels: int | None
    """Outputs of the classification head that is stored with it; None for a language model."""
    base_digests: Mapping[str, str]
    """Digest of each tensor of the base by public name, where the file tells them."""

    @property
    def weights(self) -> Path:
        """File of the updates."""
        return self.path / ADAPTER_WEIGHTS_FILE


def adapter_files(model: GPT | GPTClassifier, config: AdapterConfig) -> dict[str, bytes]:
    """Return the files of an adapter directory by name: the updates of a model, and a classifier's head."""
    tensors = [NamedTensor(name, tensor.detach(), tensor.dtype) for name, tensor in adapter_tensors(model, config)]
    weights = io.BytesIO()
    write_safetensors(weights, tensors, {"base_digests": json.dumps(dict(base_digests(model)))})
    public = config.to_public(model.config, is_classifier=isinstance(model, GPTClassifier))
    description = json.dumps(public, indent=2) + "\n"
    return {ADAPTER_CONFIG_FILE: description.encode(), ADAPTER_WEIGHTS_FILE: weights.getvalue()}


def read_adapter(path: Path | str) -> StoredAdapter:
    """Describe the adapter directory at `path`.

    Raises:
        CheckpointError: a file is missing, damaged, or asks for what we do not support.
    """
    path = Path(path)
    public = read_json(path / ADAPTER_CONFIG_FILE)
    try:
        config = AdapterConfig.from_public(public)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path / ADAPTER_CONFIG_FILE}: {place}: {first['msg']}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path / ADAPTER_CONFIG_FILE}: {error}") from None
    shapes, facts = _read_header(path / ADAPTER_WEIGHTS_FILE)
    head = shapes.get(f"{PREFIX}score.weight")
    if head is None and public.get("task_type") == "SEQ_CLS":
        raise CheckpointError(
            f"{path / ADAPTER_WEIGHTS_FILE}: adapts a classifier, but its head score.weight is missing"
        )
    try:
        digests = dict(json.loads(facts.get("base_digests", "{}")))
    except (TypeError, ValueError):
        raise CheckpointError(f"{path / ADAPTER_WEIGHTS_FILE}: its facts are damaged; write it again") from None
    return StoredAdapter(path, config, head[0] if head else None, digests)


def load_adapter(model: GPT | GPTClassifier, stored: StoredAdapter) -> None:
    """Give a base the updates of an adapter, in place, not merged yet; a classifier's head as well.

    Raises:
        CheckpointError: the adapter was made for another base, or a tensor is missing, extra or of the wrong shape.
    """
    for name, digest in base_digests(model) if stored.base_digests else ():
        if stored.base_digests.get(name, digest) != digest:
            raise CheckpointError(
                f"{stored.path}: made for another base: tensor {name!r} has other values there; "
                f"give the base it was trained on ({stored.config.base})"
            )
    try:
        add_lora(model, stored.config)
    except ValueError as error:
        raise CheckpointError(
            f"{stored.path / ADAPTER_CONFIG_FILE}: made for another base, or not supported: target_modules: {error}"
        ) from None
    fill_adapter(model, stored)


def fill_adapter(model: GPT | GPTClassifier, stored: StoredAdapter) -> None:
    """Copy the stored updates to those of a model that has them already.

    Raises:
        CheckpointError: a tensor is missing, extra or of the wrong shape.
    """
    wanted = dict(adapter_tensors(model, stored.config))
    for stored_name, tensor in mapped_safetensors(stored.weights):
        name = PREFIX + canonical_name(stored_name.removeprefix(PREFIX), model.config)
        place = wanted.pop(name, None)
        if place is None:
            raise CheckpointError(f"{stored.weights}: tensor {stored_name!r} has no place in this base")
        if tensor.shape != place.shape:
            raise CheckpointError(
                f"{stored.weights}: made for another base: tensor {stored_name!r} has shape {list(tensor.shape)}, "
                f"but this base asks for {list(place.shape)}"
            )
        copy_mapped(place.detach(), tensor)
    if wanted:
        raise CheckpointError(f"{stored.weights}: made for another base: tensor {next(iter(wanted))!r} is missing")


def adapter_tensors(model: GPT | GPTClassifier, config: AdapterConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that an adapter file holds, by PEFT's names."""
    body = model.gpt if isinstance(model, GPTClassifier) else model
    for linear in config.adapted(model.config, is_classifier=isinstance(model, GPTClassifier)):
        layer = body.get_submodule(linear.name)
        assert isinstance(layer, LoRALinear)
        yield f"{PREFIX}{linear.public_name}.lora_A.weight", layer.lora_A[linear.part]
        yield f"{PREFIX}{linear.public_name}.lora_B.weight", layer.lora_B[linear.part]
    if isinstance(model, GPTClassifier):
        yield f"{PREFIX}score.weight", model.score.weight


def base_digests(model: GPT | GPTClassifier) -> Iterator[tuple[str, str]]:
    """Yield a digest of every tensor of a base by its public name, the same in float32 and rounded to bfloat16."""
    num_labels = model.num_labels if isinstance(model, GPTClassifier) else None
    parameters = dict(model.named_parameters())
    for public in public_tensors(model.config, num_labels=num_labels):
        if public.name != "score.weight":
            rows = public.shape[1] if public.is_transposed else public.shape[0]
            yield public.public_name, digest_of(parameters[public.name].detach().narrow(0, public.first_row, rows))


def digest_of(tensor: Tensor) -> str:
    """Return a short digest of a tensor's values, rounded to bfloat16."""
    found = hashlib.sha256()
    for rows in pieces(tensor):
        found.update(tensor[rows].to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def _read_header(file: Path) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Return the shape of each tensor, and the facts in the file's head."""
    if not file.exists():
        pickled = next(iter(file.parent.glob("*.bin")), None)
        if pickled is not None:
            raise CheckpointError(f"{pickled}: pickled weights are refused; save the adapter as {file.name}")
        raise CheckpointError(f"{file}: no such file; an adapter directory needs it")
    try:
        with safe_open(file, framework="pt") as stored:
            shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 - no mapping
            return shapes, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error}); fetch or write it again") from None
