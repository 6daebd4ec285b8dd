"""Which pieces of different length share a row, so that little of the row stays empty."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Put items into as few rows as best-fit decreasing finds: longest first, each where the least room stays.

    Args:
        lengths: of the items, none above `capacity`.
        seed: decides among items of equal length.

    Returns:
        The items of each row.
    """
    mixed = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left in each open row, sorted
    for item in sorted(mixed, key=lambda i: -lengths[i]):
        place = bisect_left(room, (lengths[item], -1))
        left, row = room.pop(place) if place < len(room) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(item)
        if left > lengths[item]:
            insort(room, (left - lengths[item], row))
    return rows
