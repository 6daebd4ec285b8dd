"""A model in another project's file: a config and a table of its tensors, as public checkpoints have them.

It fills a model by them and knows no project's format: its neighbours do.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from model.checkpoint import empty, fill
from model.config import GPTConfig
from model.convert import PublicTensor, is_ignored
from model.directory import CheckpointError
from model.gpt import GPT
from model.tensor_files import DTYPE_NAMES


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model in another project's file, opened but not read."""

    origin: str
    """Whose format it is."""
    file: Path
    config: GPTConfig
    table: tuple[PublicTensor, ...]
    """What the file holds of our weights; the biases that it lacks are zero."""
    stored: Mapping[str, Tensor]
    has_paired_heads: bool = False
    """Whether rotary pairs stand side by side in queries and keys, as in Meta's files, instead of half a head apart."""

    def load(self) -> GPT:
        """Read the weights, in the type they are stored in.

        Raises:
            CheckpointError: a tensor is missing, extra or of the wrong shape.
        """
        model = empty(lambda: GPT(self.config), dtype=next(iter(self.stored.values())).dtype)
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.detach().zero_()
        stored = ((self.file, name, tensor) for name, tensor in self.stored.items())
        fill(model, self.file, self.table, stored)
        if self.has_paired_heads:
            part_pairs(model)
        return model


def is_constant(name: str) -> bool:
    """Whether a tensor follows from the shape alone: causal masks, rotary frequencies."""
    return is_ignored(name) or name.endswith((".att.mask", "rope.freqs"))


def part_pairs(model: GPT) -> None:
    """Move the rotary pairs of queries and keys from side by side to half a head apart, in place."""
    num_heads, head_dim = model.config.n_head + model.config.num_kv_heads, model.config.head_dim
    for name, parameter in model.named_parameters():
        if name.endswith("attn.qkv.weight"):
            heads = parameter.detach()[: num_heads * head_dim].view(num_heads, head_dim, -1)
            heads.copy_(heads.view(num_heads, head_dim // 2, 2, -1).transpose(1, 2).reshape(heads.shape))


def is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or copies of it: a head tied to its embedding."""
    return one.dtype == other.dtype and torch.equal(one, other)


def make_config(file: Path, **fields: Any) -> GPTConfig:
    """Build the config that a file asks for.

    Raises:
        CheckpointError: there is no such model.
    """
    try:
        return GPTConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise CheckpointError(f"{file}: {place}{first['msg'].removeprefix('Value error, ')}") from None


def count_layers(names: Iterable[str], prefix: str) -> int:
    """Count the layers of tensors named `{prefix}.0.`, `{prefix}.1.`, ..."""
    numbers = [int(found[1]) for name in names if (found := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))]
    return 1 + max(numbers, default=-1)


def tensors_of(file: Path, content: object) -> dict[str, Tensor]:
    """Take what a file holds under the names of a model's tensors, without what follows from the shape alone.

    Raises:
        CheckpointError: it is empty, or holds anything but plain tensors of floats.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__} where a model's tensors are expected")
    tensors = {str(name): tensor for name, tensor in content.items() if not is_constant(str(name))}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(f"{file}: {name!r} is not a plain tensor of floats; save `model.state_dict()`")
    if not tensors:
        raise CheckpointError(f"{file}: holds no weights")
    return tensors


def sizes_of(file: Path, state: Mapping[str, Tensor], *names: str) -> list[tuple[int, ...]]:
    """Return the shapes of the matrices that decide the config.

    Raises:
        CheckpointError: one is missing, or no matrix.
    """
    for name in names:
        if name not in state:
            raise CheckpointError(f"{file}: tensor {name!r} is missing from the weights")
        if state[name].dim() != 2:
            raise CheckpointError(f"{file}: tensor {name!r} has shape {list(state[name].shape)}, expected a matrix")
    return [tuple(state[name].shape) for name in names]
