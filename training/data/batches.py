"""What a trainer asks for: the batch of a step, of which each process gets its share of the rows.

A batch is a pure function of the step, so the step is the position in the data: nothing else is stored to resume.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, overload

import torch

from training.loss import IGNORE_INDEX, Batch


class Batches(Protocol):
    """The batch of each step; over all ranks its rows are exactly those that one process alone would get."""

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return rows `rank`, `rank + world_size`, ... of the step's batch."""


class InOrder(Sequence[Batch]):
    """Items once each, in the order given: a lazy sequence of batches to evaluate on, made as they are asked for."""

    def __init__(self, collate: Callable[[Sequence[int]], Batch], items: Sequence[int], batch_size: int) -> None:
        self._collate = collate
        self._items = items
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._items) // self._batch_size)

    @overload
    def __getitem__(self, number: int) -> Batch: ...
    @overload
    def __getitem__(self, number: slice) -> list[Batch]: ...
    def __getitem__(self, number: int | slice) -> Batch | list[Batch]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = range(len(self))[number]
        return self._collate(self._items[place * self._batch_size : (place + 1) * self._batch_size])

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of one batch; see `share`."""
        return share(self[step], rank, world_size)


def share(batch: Batch, rank: int, world_size: int) -> Batch:
    """Return a rank's rows of a batch: every `world_size`-th, from `rank` on.

    Where the rows cannot be dealt out evenly, the short ranks get a first row without a target, which counts nothing:
    all ranks make the same number of passes over batches of the same size, as sharded models need. Batches without
    `targets` are dealt out as they are.
    """
    part = {name: tensor[rank::world_size] for name, tensor in batch.items()}
    num_rows = len(batch["idx"])
    if "targets" not in batch or len(part["idx"]) == -(-num_rows // world_size):
        return part
    filler = {name: tensor[:1] for name, tensor in batch.items()}
    filler["targets"] = torch.full_like(filler["targets"], IGNORE_INDEX)
    return {name: torch.cat([tensor, filler[name]]) for name, tensor in part.items()}
