"""Windows over token ids: a random order of them to train on, and some that cover a text to evaluate on.

Ids are arrays, memory-mapped or not; how they came about is nothing to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.batches import InOrder
from training.data.documents import Documents, number_documents
from training.data.errors import DataError
from training.data.ids import Ids
from training.data.order import EpochOrder
from training.loss import IGNORE_INDEX, Batch


class TokenWindows:
    """Batches of windows over token ids: the book's sliding window, in a new random order each epoch.

    A window is `block_size` ids and, as targets, the same ids one place later. No window crosses two shards.
    """

    def __init__(
        self,
        shards: Sequence[Ids],
        *,
        block_size: int,
        stride: int,
        batch_size: int,
        seed: int,
        documents: Sequence[Documents] = (),
        document_mask: bool = False,
    ) -> None:
        """Lay windows over shards.

        Args:
            shards: ids, possibly memory-mapped.
            block_size: inputs of a window.
            stride: ids between the starts of neighbouring windows.
            batch_size: windows of one step, over all ranks.
            seed: fixes their order.
            documents: where the documents of each shard lie; empty: not known, and not needed without a mask.
            document_mask: tell the model which document each input belongs to, and its place within that.

        Raises:
            DataError: no shard is long enough for one window.
        """
        counts = [max(0, (len(ids) - block_size - 1) // stride + 1) for ids in shards]
        if sum(counts) == 0:
            longest = max((len(ids) for ids in shards), default=0)
            raise DataError(
                f"the training text has {longest} tokens, too few for one window of {block_size} and its targets; "
                "use more text or a smaller --model.block-size"
            )
        assert len(documents) in (0, len(shards))
        assert documents or not document_mask
        self.shards = shards
        self.block_size = block_size
        self.stride = stride
        self.batch_size = batch_size
        self._documents = documents
        self._masked = document_mask
        self._ends = np.cumsum(counts)
        self._order = EpochOrder(int(self._ends[-1]), batch_size, seed)

    def __len__(self) -> int:
        return self._order.num_items

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch: `idx` and `targets`, with a mask also `documents` and `positions`.

        Each is (B, T) int64. Positions begin anew with each document, and with the window.
        """
        return self.rows(np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::world_size])

    def rows(self, places: NDArray[np.int64]) -> Batch:
        """Return the windows at some places (B,) of the endless row of epochs."""
        items = self._order.at(places)
        names = ("idx", "targets", "documents", "positions")[: 4 if self._masked else 2]
        batch = np.empty((len(names), len(items), self.block_size), dtype=np.int64)
        for row, item in enumerate(items):
            self._fill(batch[:, row], int(item))
        return dict(zip(names, torch.from_numpy(batch), strict=True))

    def _fill(self, row: NDArray[np.int64], item: int) -> None:
        """Write one window into `row` (2 or 4, T)."""
        shard = int(np.searchsorted(self._ends, item, side="right"))
        start = (item - (int(self._ends[shard - 1]) if shard else 0)) * self.stride
        window = self.shards[shard][start : start + self.block_size + 1]
        row[0], row[1] = window[:-1], window[1:]
        if self._documents:
            self._documents[shard].mask_borders(row[1], start)
        if self._masked:
            row[2], row[3] = number_documents(self._documents[shard].openings(start, self.block_size))


def covering_batches(
    ids: Sequence[int] | Ids,
    *,
    block_size: int,
    batch_size: int,
    stride: int,
    limit: int | None = None,
    eos_id: int | None = None,
    documents: Documents | None = None,
    document_mask: bool = False,
) -> InOrder:
    """Cut ids into windows so that each id but the first is a target exactly once; none is made before it is needed.

    Windows start `stride` apart; where they overlap, only the later places are targets, so that each (but those of
    the first window) is predicted from at least `block_size - stride` ids before it.

    Args:
        ids: the row of ids, possibly memory-mapped.
        block_size: inputs of a window.
        batch_size: windows of one batch.
        stride: ids between the starts of neighbouring windows.
        limit: look at about so many targets, in windows spread evenly over the row; None: at all.
        eos_id: put this id before the row, so that its first id is a target too.
        documents: where its documents lie; see `TokenWindows`.
        document_mask: see `TokenWindows`.
    """
    row = CoveringWindows(ids, block_size, stride, eos_id, documents, document_mask)
    return cover([row], batch_size=batch_size, limit=limit)


def cover(rows: Sequence["CoveringWindows"], *, batch_size: int, limit: int | None = None) -> InOrder:
    """Return the windows of several rows of ids one after another; see `covering_batches`."""
    ends = np.cumsum([len(row) for row in rows])
    num_windows = int(ends[-1]) if rows else 0
    stride = rows[0].stride if rows else 1
    wanted = num_windows if limit is None else min(num_windows, max(1, limit // stride))
    chosen = range(num_windows) if wanted == num_windows else [i * num_windows // wanted for i in range(wanted)]

    def collate(items: Sequence[int]) -> Batch:
        block_size = rows[0].block_size
        names = ("idx", "targets", "documents", "positions")[: 4 if rows[0].document_mask else 2]
        batch = np.zeros((len(names), len(items), block_size), dtype=np.int64)
        batch[1] = IGNORE_INDEX
        for place, item in enumerate(items):
            row = int(np.searchsorted(ends, item, side="right"))
            rows[row].fill(batch[:, place], item - (int(ends[row - 1]) if row else 0))
        return dict(zip(names, torch.from_numpy(batch), strict=True))

    return InOrder(collate, chosen, batch_size)


@dataclass(frozen=True, slots=True)
class CoveringWindows:
    """Windows that cover a row of ids; `covering_batches` says how."""

    ids: Sequence[int] | Ids
    block_size: int
    stride: int
    eos_id: int | None = None
    documents: Documents | None = None
    document_mask: bool = False

    def __len__(self) -> int:
        return len(range(0, max(1, self._num_ids - 1 - self.block_size + self.stride), self.stride))

    @property
    def _num_ids(self) -> int:
        return len(self.ids) + (self.eos_id is not None)

    def fill(self, row: NDArray[np.int64], number: int) -> None:
        """Write one window into `row` (2 or 4, T), which holds zeros and `IGNORE_INDEX`."""
        start = number * self.stride
        window = self._slice(start, start + self.block_size + 1)
        length = len(window) - 1
        shift = self.eos_id is not None  # places in `ids` lie one before those in the row
        row[0, :length], targets = window[:-1], window[1:].copy()
        if self.documents is not None:
            self.documents.mask_borders(targets, start - shift)
        if self.documents is not None and self.document_mask:
            row[2], row[3] = number_documents(self.documents.openings(start - shift, self.block_size))
        fresh = self.block_size - self.stride if start else 0
        row[1, fresh:length] = targets[fresh:]

    def _slice(self, start: int, end: int) -> NDArray[np.int64]:
        if self.eos_id is None:
            return np.asarray(self.ids[start:end], dtype=np.int64)
        window = np.asarray(self.ids[max(0, start - 1) : end - 1], dtype=np.int64)
        return window if start else np.concatenate([[self.eos_id], window])
