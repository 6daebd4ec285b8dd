"""Which part of the texts is held out to validate on.

One document gives its last characters, as the book and nanoGPT do. Of several, some are held out whole: those with the
smallest digests of their content, up to the share. In whatever order or files the documents come, the choice stays;
repeated documents fall on one side; and data sorted by author, date or label is judged on all kinds, where its end
would be one kind only.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError

TRAIN, VALID = "train", "valid"

Digests = NDArray[np.uint64]

NUM_BINS = 1 << 16
"""Digests are told apart by so many equal ranges, to choose in bounded memory among any number of documents."""

_BIN_SHIFT = np.uint64(48)
FIRST, LAST = 0, 2**64 - 1
"""Digests of what is held out before, and after, everything else."""


def with_digests(documents: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield documents with their digests, 64 bits each."""
    for document in documents:
        yield int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest(), "big"), document


def split_alone(documents: Iterable[str], fraction: float) -> Iterator[tuple[int, str]]:
    """Yield all the documents there are with digests; one alone is cut at a character, its end to be held out.

    Raises:
        DataError: a single text is too short to have two sides.
    """
    rest = iter(documents)
    first = list(itertools.islice(rest, 2))  # more than that need not fit into memory
    if len(first) != 1 or fraction == 0:
        yield from with_digests(itertools.chain(first, rest))
        return
    (text,) = first
    cut = int(len(text) * (1 - fraction))
    if cut in (0, len(text)):
        raise DataError(
            f"--data: a text of {len(text)} characters is too short to train on and to hold {fraction:g} of it out; "
            "use more text or another --valid-fraction"
        )
    yield LAST, text[:cut]
    yield FIRST, text[cut:]


def bytes_by_bin(digests: Digests, sizes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how many bytes of text fall into each range of digests, (NUM_BINS,); sums of several add up."""
    return np.bincount((digests >> _BIN_SHIFT).astype(np.int64), sizes, NUM_BINS).astype(np.int64)


def choose_bins(num_bytes: NDArray[np.int64], fraction: float) -> int:
    """Return how many ranges of digests to hold out: the most that do not exceed a share of all bytes.

    At least one document is held out of several, unless the share is 0, and never all of them.
    """
    filled = np.flatnonzero(num_bytes)
    if fraction == 0 or len(filled) < 2:
        return 0
    within = int(np.searchsorted(np.cumsum(num_bytes), fraction * num_bytes.sum(), side="right"))
    return int(np.clip(within, filled[0] + 1, filled[-1]))


def is_held_out(digests: Digests, num_bins: int) -> NDArray[np.bool_]:
    """Return which documents lie in the ranges that `choose_bins` chose."""
    return np.asarray(digests >> _BIN_SHIFT < np.uint64(num_bins))
