"""LoRA: a linear layer whose weights stay and whose low-rank update is trained (Hu et al. 2021, equation 3).

Several public layers may lie in one of ours, such as queries, keys and values: each that is adapted has its own update
of its own rows. Which layers are adapted is `model.adapter_config`'s knowledge, files are `model.adapter`'s.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapter_config import AdapterConfig, PublicLinear
from model.classifier import GPTClassifier
from model.gpt import GPT


class Part(NamedTuple):
    """The rows of a layer that one update changes."""

    name: str
    first_row: int
    num_rows: int
    scale: float


class LoRALinear(nn.Linear):
    """A linear layer with updates `scale * B @ A` of parts of its rows; `weight` and `bias` are those it was given.

    Each part `p` has `lora_A.p` (rank, in_features), drawn at random, and `lora_B.p` (rows, rank), zero at first, so
    that the layer begins as it was. Updates are float32 at least and are computed so, whatever the weights are.
    """

    def __init__(self, linear: nn.Linear, dropout: float = 0.0) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.dropout = dropout
        self.parts: list[Part] = []
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.is_adapted = True

    def add_part(self, linear: PublicLinear, rank: int, scale: float) -> None:
        """Add the update of one public layer."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        a = torch.empty(rank, self.in_features, dtype=dtype, device=self.weight.device)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as a fresh linear layer, and as PEFT draws it
        self.lora_A[linear.part] = nn.Parameter(a)
        self.lora_B[linear.part] = nn.Parameter(a.new_zeros(linear.num_rows, rank))
        self.parts.append(Part(linear.part, linear.first_row, linear.num_rows, scale))

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)  # (..., out_features)
        if not self.is_adapted:
            return out
        if [part.num_rows for part in self.parts] == [self.out_features]:
            return self._updated(out, x, self.parts[0])
        pieces, end = [], 0
        for part in self.parts:
            pieces.append(out[..., end : part.first_row])
            end = part.first_row + part.num_rows
            pieces.append(self._updated(out[..., part.first_row : end], x, part))
        return torch.cat([*pieces, out[..., end:]], -1)

    def _updated(self, rows: Tensor, x: Tensor, part: Part) -> Tensor:
        a, b = self.lora_A[part.name], self.lora_B[part.name]
        given = F.dropout(x.to(a.dtype), self.dropout, self.training)
        return (rows + F.linear(F.linear(given, a), b) * part.scale).to(rows.dtype)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Return the one weight that does the same, in the precision of the updates; a copy."""
        dtype = next(iter(self.lora_A.values())).dtype
        merged = self.weight.detach().to(dtype, copy=True)
        for part in self.parts:
            update = self.lora_B[part.name] @ self.lora_A[part.name] * part.scale
            merged.narrow(0, part.first_row, part.num_rows).add_(update)
        return merged


def add_lora(model: GPT | GPTClassifier, config: AdapterConfig) -> None:
    """Give the linear layers that a config names their updates, in place; nothing but the updates trains from then on.

    A classifier's `score` trains whole: it is new, and small.

    Raises:
        ValueError: a target names no linear layer.
    """
    adapted = config.adapted(model.config, is_classifier=isinstance(model, GPTClassifier))
    model.requires_grad_(False)
    body = model.gpt if isinstance(model, GPTClassifier) else model
    for linear in adapted:
        layer = body.get_submodule(linear.name)
        if not isinstance(layer, LoRALinear):
            assert isinstance(layer, nn.Linear)
            layer = LoRALinear(layer, config.dropout).train(layer.training)
            body.set_submodule(linear.name, layer)
        layer.add_part(linear, config.rank_of(linear.public_name), config.scale_of(linear.public_name))
    if isinstance(model, GPTClassifier):
        model.score.requires_grad_(True)
        model.score.to(torch.promote_types(model.score.weight.dtype, torch.float32))


def merge_lora(model: GPT | GPTClassifier) -> None:
    """Put plain linear layers in the place of adapted ones, in place: the same function, at the old speed.

    Weights that are less than float32 become float32, so that merging rounds nothing away.
    """
    adapted = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoRALinear)]
    for name, layer in adapted:
        weight = layer.merged_weight()
        merged = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        merged.weight = nn.Parameter(weight)
        if layer.bias is not None:
            merged.bias = nn.Parameter(layer.bias.detach())
        model.set_submodule(name, merged.train(layer.training))
    if adapted:
        cast_weights(model, next(iter(adapted[0][1].lora_A.values())).dtype)
        model.requires_grad_(True)


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Give all weights a type, in place; what else a model holds, such as its table of angles, keeps its own."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def has_lora(model: nn.Module) -> bool:
    """Say whether any layer of a model is adapted."""
    return any(isinstance(layer, LoRALinear) for layer in model.modules())


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Let a model compute as it did before it was adapted, for a while."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALinear)]
    for layer in layers:
        layer.is_adapted = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_adapted = True
