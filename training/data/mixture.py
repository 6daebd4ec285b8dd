"""Several sources of rows in fixed shares: which source, and which of its rows, a row of the mixture is.

Both are pure functions of the row's number, so a run resumes from its step alone. Rows come in blocks: the shares of
the first blocks are exact to one row each, and the order within a block is drawn from the seed.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from training.data.errors import DataError
from training.data.order import Indices
from training.loss import Batch

SMALLEST_BLOCK = 64
"""Rows of a block, unless a share is so small that it needs a longer one."""


SMALLEST_SHARE = 1e-5
"""A block holds rows of every source: a smaller share would need blocks that fill the memory."""


class RowSource(Protocol):
    """Rows in an endless order of their own."""

    def rows(self, places: Indices) -> Batch:
        """Return the rows at some places (B,) of that order."""


class MixtureOrder:
    """The source of each row, and its place among that source's rows, which are taken one after another."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        assert weights
        assert min(weights) > 0
        shares = [weight / math.fsum(weights) for weight in weights]
        if not min(shares) >= SMALLEST_SHARE:  # or not a number, of infinite weights
            raise DataError(
                f"--weights: {', '.join(f'{weight:g}' for weight in weights)}: the smallest share is less than one row "
                f"in {1 / SMALLEST_SHARE:,.0f}; leave that source out or give it more"
            )
        self.block_size = max(SMALLEST_BLOCK, math.ceil(4 / min(shares)))
        self._seed = seed
        self._borders = np.array([0.0, *itertools.accumulate(shares)])
        self._borders[-1] = 1.0
        self._block = functools.lru_cache(maxsize=8)(self._lay_out)

    def __call__(self, rows: Indices) -> tuple[Indices, Indices]:
        """Return the sources (B,) and the places within them (B,) of some rows (B,)."""
        found = np.empty((2, len(rows)), dtype=np.int64)
        blocks, within = np.divmod(rows, self.block_size)
        for block in np.unique(blocks):
            inside = blocks == block
            found[:, inside] = self._block(int(block))[:, within[inside]]
        return found[0], found[1]

    def _taken(self, block: int) -> Indices:
        """Return how many rows of each source lie before a block: whole numbers that add up."""
        # Borders are rounded, not shares: the sum is right, and a block, which holds 4 rows of the smallest share,
        # never has a negative number of any.
        borders = np.floor(self._borders * (block * self.block_size) + 0.5).astype(np.int64)
        return borders[1:] - borders[:-1]

    def _lay_out(self, block: int) -> Indices:
        before, after = self._taken(block), self._taken(block + 1)
        sources = np.repeat(np.arange(len(before)), after - before)
        np.random.default_rng([self._seed, block, self.block_size]).shuffle(sources)
        places = np.empty_like(sources)
        for source, first in enumerate(before):
            chosen = sources == source
            places[chosen] = first + np.arange(chosen.sum())
        return np.stack([sources, places])


class Mixture:
    """The batch of each step, drawn from several sources whose rows have the same names and shapes."""

    def __init__(self, sources: Sequence[RowSource], weights: Sequence[float], *, batch_size: int, seed: int) -> None:
        assert len(sources) == len(weights)
        self._sources = sources
        self._batch_size = batch_size
        self._order = MixtureOrder(weights, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch."""
        return self.rows(np.arange(step * self._batch_size, (step + 1) * self._batch_size)[rank::world_size])

    def rows(self, places: Indices) -> Batch:
        """Return some rows (B,) of the mixture."""
        if not len(places):
            return self._sources[0].rows(places)
        sources, inner = self._order(places)
        chosen = {int(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
        parts = [self._sources[source].rows(inner[rows]) for source, rows in chosen.items()]
        back = torch.from_numpy(np.argsort(np.concatenate(list(chosen.values())), kind="stable"))
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
