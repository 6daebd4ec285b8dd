"""Interpolated Kneser-Ney over arrays: the model of `baselines.NGram`, for texts of tens of millions of symbols.

It counts with sorts instead of dictionaries; `NGram` is its oracle. It knows symbols by number, not what they spell.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.signedinteger[Any]]
Chances = NDArray[np.floating[Any]]

BEFORE = 0
"""Number that stands before a sequence starts; symbols count from 1."""

UNSEEN = -1
"""Number of a symbol or context that training did not meet."""


@dataclass(frozen=True, slots=True)
class Level:
    """The counts of one order. A gram is a context and the symbol after it; both are known by number."""

    keys: Numbers
    """One sorted number for each different gram, made of its context and its symbol."""
    counts: Numbers
    """How often each gram was seen; below the highest order, after how many different symbols."""
    totals: Numbers
    """Sum of the counts of each context."""
    followers: Numbers
    """Number of different symbols seen after each context."""
    discount: float

    def find(self, keys: Numbers) -> Numbers:
        """Return the place of each key (N,), `UNSEEN` for those that training did not meet."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, UNSEEN)

    def mix(self, contexts: Numbers, places: Numbers, lower: Chances) -> Chances:
        """Subtract the discount and give what that frees to the chances of the order below (N,)."""
        known = (contexts != UNSEEN) & (self.totals[contexts] > 0)
        totals = np.where(known, self.totals[contexts], 1)
        counts = np.where(places != UNSEEN, self.counts[places], 0)
        kept = np.maximum(counts - self.discount, 0.0) + self.discount * self.followers[contexts] * lower
        return np.where(known, kept / totals, lower)


class NGramTable:
    """The n-gram model of some sequences of symbols (N,), int64, which count from 1.

    Args:
        sequences: each is preceded by `order - 1` times `BEFORE`.
        num_symbols: one more than the largest symbol.
    """

    def __init__(self, sequences: Iterable[Numbers], *, order: int, num_symbols: int) -> None:
        self.order = order
        self.num_symbols = num_symbols
        symbols = self._lead_in(sequences)
        is_target = symbols != BEFORE
        grams = [np.zeros_like(symbols)]  # by order: the number of the gram that ends at each place
        keys: list[Numbers] = []
        firsts: list[Numbers] = []
        for _ in range(order):
            joined = _shift(grams[-1]) * num_symbols + symbols
            different, first, gram = np.unique(joined, return_index=True, return_inverse=True)
            keys.append(different)
            firsts.append(first)
            grams.append(gram)
        self._levels: list[Level] = []
        for length in range(order, 0, -1):
            size = len(keys[length - 1])
            if length == order:
                counts = np.bincount(grams[length][is_target], minlength=size)
            else:  # each different longer gram counts once for the gram it ends with
                longer = firsts[length][is_target[firsts[length]]]
                counts = np.bincount(grams[length][longer], minlength=size)
            self._levels.insert(0, _make_level(keys[length - 1], counts, num_symbols, int(grams[length - 1].max()) + 1))

    def log2(self, sequence: Numbers, base: Chances) -> Chances:
        """Return the base-2 logarithm of the chance of each symbol (N,) of a sequence, in float64.

        Args:
            sequence: symbols (N,), `UNSEEN` for those without a number.
            base: chance of each symbol (N,) from below the lowest order; never 0.
        """
        symbols = self._lead_in([sequence])
        chances: Chances = np.ones(len(symbols))
        chances[self.order - 1 :] = base
        grams = np.zeros_like(symbols)
        for level in self._levels:
            contexts = _shift(grams)
            is_known = (contexts != UNSEEN) & (symbols != UNSEEN)
            grams = np.where(is_known, level.find(contexts * self.num_symbols + symbols), UNSEEN)
            chances = level.mix(contexts, grams, chances)
        return np.log2(chances[self.order - 1 :])

    def _lead_in(self, sequences: Iterable[Numbers]) -> Numbers:
        before = np.full(self.order - 1, BEFORE, dtype=np.int64)
        return np.concatenate([part for sequence in sequences for part in (before, sequence)])


def _shift(grams: Numbers) -> Numbers:
    """Move each gram to the place after it, where it is the context."""
    return np.concatenate([np.zeros(1, dtype=grams.dtype), grams[:-1]])


def _make_level(keys: Numbers, counts: Numbers, num_symbols: int, num_contexts: int) -> Level:
    contexts = keys // num_symbols
    tally = np.bincount(counts[counts > 0], minlength=3)
    once, twice = int(tally[1]), int(tally[2])
    return Level(
        keys=keys,
        counts=counts,
        totals=np.bincount(contexts, weights=counts, minlength=num_contexts).astype(np.int64),
        followers=np.bincount(contexts[counts > 0], minlength=num_contexts),
        discount=once / (once + 2 * twice) if once and twice else 0.5,
    )
