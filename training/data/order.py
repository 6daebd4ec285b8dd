"""Which items make up the batch of a step: a pure function of seed and step, so resuming needs no stored position."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

POOL_BATCHES = 16
"""Batches that are drawn, sorted by length and dealt out together."""


def shuffled(num_items: int, epoch: int, seed: int) -> Indices:
    """Return the order of the items in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_items)


class EpochOrder:
    """Every item once in each epoch, in a new order each time; a batch may straddle two epochs."""

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        assert num_items > 0, "an empty data set is refused where it is read"
        self.num_items = num_items
        self.batch_size = batch_size
        self._epoch = functools.lru_cache(maxsize=2)(functools.partial(shuffled, num_items, seed=seed))

    def __call__(self, step: int) -> Indices:
        """Return the items of a step's batch."""
        return self.at(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def at(self, places: Indices) -> Indices:
        """Return the items at some places of the endless row of epochs."""
        epochs = places // self.num_items
        items = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            items[inside] = self._epoch(int(epoch))[places[inside] % self.num_items]
        return items


class LengthGroupedOrder:
    """`EpochOrder` whose batches hold items of similar length, so that little of a padded batch is padding.

    The batches of a pool are sorted by length and then dealt out in random order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self._items = EpochOrder(len(lengths), batch_size, seed)
        self._pool = functools.lru_cache(maxsize=1)(self._deal)

    def __call__(self, step: int) -> Indices:
        """Return the items of a step's batch."""
        pool, place = divmod(step, POOL_BATCHES)
        return self._pool(pool)[place]

    def _deal(self, pool: int) -> list[Indices]:
        size = POOL_BATCHES * self.batch_size
        items = self._items.at(np.arange(pool * size, (pool + 1) * size))
        by_length = items[np.argsort(self.lengths[items], kind="stable")]
        batches = by_length.reshape(POOL_BATCHES, self.batch_size)
        order = np.random.default_rng([self.seed, pool, POOL_BATCHES]).permutation(POOL_BATCHES)
        return [batches[place] for place in order]
