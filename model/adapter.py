"""Adapters in files: the directories of PEFT, `adapter_config.json` beside `adapter_model.safetensors`.

An adapter fits one base only. Its file remembers digests of the base's weights, where PEFT would not look; an adapter
without them is held to names and shapes. What the weights do is `model.lora`'s knowledge, what the directory says of
itself `model.adapter_directory`'s.
"""

import hashlib
import io
import json
from collections.abc import Iterator

import torch
from torch import Tensor

from model.adapter_config import AdapterConfig
from model.adapter_directory import PREFIX, StoredAdapter
from model.classifier import GPTClassifier
from model.convert import canonical_name, public_tensors
from model.directory import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CheckpointError
from model.gpt import GPT
from model.lora import LoRALinear, add_lora
from model.tensor_files import NamedTensor, copy_mapped, mapped_safetensors, pieces, write_safetensors


def adapter_files(model: GPT | GPTClassifier, config: AdapterConfig) -> dict[str, bytes]:
    """Return the files of an adapter directory by name: the updates of a model, and a classifier's head."""
    tensors = [NamedTensor(name, tensor.detach(), tensor.dtype) for name, tensor in adapter_tensors(model, config)]
    weights = io.BytesIO()
    write_safetensors(weights, tensors, {"base_digests": json.dumps(dict(base_digests(model)))})
    public = config.to_public(model.config, is_classifier=isinstance(model, GPTClassifier))
    description = json.dumps(public, indent=2) + "\n"
    return {ADAPTER_CONFIG_FILE: description.encode(), ADAPTER_WEIGHTS_FILE: weights.getvalue()}


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
    attach_adapter(model, stored)
    fill_adapter(model, stored)


def attach_adapter(model: GPT | GPTClassifier, stored: StoredAdapter) -> None:
    """Give a model updates as an adapter describes them, without its weights.

    Raises:
        CheckpointError: the adapter was made for another base.
    """
    try:
        add_lora(model, stored.config)
    except ValueError as error:
        raise CheckpointError(
            f"{stored.path / ADAPTER_CONFIG_FILE}: made for another base, or not supported: target_modules: {error}"
        ) from None


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
        if not tensor.isfinite().all():
            raise CheckpointError(f"{stored.weights}: tensor {stored_name!r} has infinities or NaN: train it again")
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
