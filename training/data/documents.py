"""Where documents begin inside a window of token ids, so that none is predicted from, or sees, another.

It knows the places where documents end and nothing of models; attention masks are `model.packing`'s.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.ids import Ends, Ids
from training.loss import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of one row of ids.

    An end token belongs to two documents: as a target it ends one, as an input it opens the next, whose first token
    it predicts. Between two documents without an end token nothing is predicted.
    """

    ids: Ids
    ends: Ends
    eos_id: int

    def openings(self, start: int, length: int) -> NDArray[np.bool_]:
        """Return which of the inputs `start` to `start + length` open a document, (length,) bool."""
        opens = np.zeros(length + 1, dtype=np.bool_)
        ends = self._ends_within(start, length)
        opens[ends - start - self._has_end_token(ends)] = True
        opens[0] = True
        return opens[:-1]

    def mask_borders(self, targets: NDArray[np.int64], start: int) -> None:
        """Put `IGNORE_INDEX` where a target (length,) is the first token of a document that no end token opens."""
        ends = self._ends_within(start, len(targets))
        targets[ends[~self._has_end_token(ends)] - start - 1] = IGNORE_INDEX

    def _ends_within(self, start: int, length: int) -> NDArray[np.int64]:
        edges = np.array([max(0, start), start + length], dtype=self.ends.dtype)
        first, last = np.searchsorted(self.ends, edges, side="right")
        return self.ends[first:last].astype(np.int64)

    def _has_end_token(self, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self.ids[ends - 1] == self.eos_id)


def number_documents(openings: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the documents of a window and the places within each, both from 0, (T,) int64 each."""
    places = np.arange(len(openings))
    documents = np.cumsum(openings) - 1
    return documents, places - np.flatnonzero(openings)[documents]
