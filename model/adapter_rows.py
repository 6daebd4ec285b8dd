"""LoRA adapters beside a model that serves: in one forward pass, each token has the updates of its own adapter.

The base computes all tokens together. A hook behind each adapted layer then adds, to the tokens of each adapter, its
low-rank product; so the base's weights are shared and never touched, in whatever layout they lie (`model.cpu_linear`),
and no token's result depends on the adapters of others. Which files adapters come from is `model.adapter`'s knowledge.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapter import attach_adapter, fill_adapter
from model.adapter_directory import StoredAdapter
from model.classifier import GPTClassifier
from model.config import GPTConfig
from model.gpt import GPT
from model.lora import LoRALinear


@dataclass(frozen=True, slots=True)
class Update:
    """What an adapter adds to the outputs of one linear layer of ours: `b @ a` of its inputs, all parts joined."""

    a: Tensor
    """(R, in_features), the ranks of all parts together."""
    b: Tensor
    """(out_features, R), scaled; zero where a part does not reach."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter as a model that serves needs it."""

    updates: Mapping[str, Update]
    """By name of our layer."""
    head: Tensor | None
    """(num_labels, C) of an adapted classifier."""


def read_updates(stored: StoredAdapter, config: GPTConfig, device: torch.device | str) -> LoadedAdapter:
    """Load an adapter without its base, in float32.

    Raises:
        CheckpointError: it was made for another base.
    """
    with torch.device("meta"):  # a model of the base's shape that takes no memory
        model = GPT(config) if stored.num_labels is None else GPTClassifier(config, stored.num_labels)
    attach_adapter(model, stored)
    body = model.gpt if isinstance(model, GPTClassifier) else model
    layers = {name: layer for name, layer in body.named_modules() if isinstance(layer, LoRALinear)}
    for layer in layers.values():
        layer.lora_A.to_empty(device="cpu")
        layer.lora_B.to_empty(device="cpu")
    if isinstance(model, GPTClassifier):
        model.score.to_empty(device="cpu")
    fill_adapter(model, stored)
    head = model.score.weight.detach().to(device) if isinstance(model, GPTClassifier) else None
    return LoadedAdapter({name: _join(layer, device) for name, layer in layers.items()}, head)


def _join(layer: LoRALinear, device: torch.device | str) -> Update:
    a = torch.cat([layer.lora_A[part.name].detach() for part in layer.parts])  # (R, in)
    b = a.new_zeros(layer.out_features, len(a))
    first = 0
    for part in layer.parts:
        own = layer.lora_B[part.name].detach()  # (rows, r)
        b[part.first_row : part.first_row + part.num_rows, first : first + own.shape[1]] = own * part.scale
        first += own.shape[1]
    return Update(a.to(device), b.to(device))


class AdapterRows:
    """The adapters of one model, by name, and which of them the tokens of the pass at hand have."""

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._updates: dict[str, Mapping[str, Update]] = {}
        self._hooks: dict[str, torch.utils.hooks.RemovableHandle] = {}
        self._groups: list[tuple[Mapping[str, Update], slice | Tensor]] = []

    def add(self, name: str, adapter: LoadedAdapter) -> None:
        """Let tokens have this adapter from the next pass on."""
        self._updates[name] = adapter.updates
        for layer in adapter.updates.keys() - self._hooks.keys():
            hook = self._hook(layer)
            self._hooks[layer] = self._model.get_submodule(layer).register_forward_hook(hook)

    def remove(self, name: str) -> None:
        """Forget an adapter; layers that no other one changes are as they were."""
        del self._updates[name]
        for layer in self._hooks.keys() - {layer for updates in self._updates.values() for layer in updates}:
            self._hooks.pop(layer).remove()

    @contextmanager
    def applied(self, rows: Iterable[tuple[str | None, int]]) -> Iterator[None]:
        """For the passes within: the adapter of each row, None for the base, and its number of tokens."""
        self._groups = self._group(rows) if self._updates else []
        try:
            yield
        finally:
            self._groups = []

    def _group(self, rows: Iterable[tuple[str | None, int]]) -> list[tuple[Mapping[str, Update], slice | Tensor]]:
        """Gather each adapter's tokens: a slice where they lie side by side, which spares copies."""
        places: dict[str, list[range]] = {}
        end = 0
        for name, length in rows:
            start, end = end, end + length
            if name is not None:
                places.setdefault(name, []).append(range(start, end))
        return [(self._updates[name], self._index(ranges)) for name, ranges in places.items()]

    def _index(self, ranges: list[range]) -> slice | Tensor:
        first, last = ranges[0].start, ranges[-1].stop
        if sum(map(len, ranges)) == last - first:
            return slice(first, last)
        return torch.tensor([place for span in ranges for place in span], device=self._model.wte.weight.device)

    def _hook(self, layer: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def add_updates(_: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
            for updates, rows in self._groups:
                if (update := updates.get(layer)) is not None:
                    _add(update, inputs[0].flatten(0, -2), out.flatten(0, -2), rows)

        return add_updates


def _add(update: Update, x: Tensor, out: Tensor, rows: slice | Tensor) -> None:
    """Add an update to some rows of a layer's outputs (N, out_features), given all its inputs (N, in_features)."""
    change = F.linear(F.linear(x[rows].to(update.a.dtype), update.a), update.b)
    if isinstance(rows, slice):
        out[rows] += change
    else:
        out[rows] = (out[rows] + change).to(out.dtype)
