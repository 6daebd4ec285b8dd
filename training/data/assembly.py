"""Finished pieces to the shards of both sides: which documents are held out is decided here, over all of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError
from training.data.holdout import TRAIN, VALID, bytes_by_bin, choose_bins, is_held_out
from training.data.ids import Ids
from training.data.pieces import Piece, open_piece
from training.data.shards import Manifest, ShardWriter

BLOCK_TOKENS = 1 << 20
"""Tokens looked at together, as far as documents allow."""


def assemble(
    pieces: Sequence[Piece], folder: Path, valid_fraction: float, *, vocab_size: int, **about: Any
) -> dict[str, Manifest]:
    """Write the shards of both sides, each with its manifest; `about` is for `ShardWriter`.

    Raises:
        DataError: there is nothing to train on.
    """
    num_bins = choose_bins(sum_bytes(pieces, vocab_size), valid_fraction)
    writers = {side: ShardWriter(folder / side, vocab_size=vocab_size, **about) for side in (VALID, TRAIN)}
    num_bytes = dict.fromkeys(writers, 0)
    for piece in pieces:
        for ids, documents in blocks(*open_piece(piece, vocab_size)):
            held_out = is_held_out(documents["digest"], num_bins)
            ends = documents["end"].astype(np.int64)
            lengths = ends - np.concatenate([[0], ends[:-1]])
            for side, chosen in ((VALID, held_out), (TRAIN, ~held_out)):
                if chosen.any():
                    writers[side].write(ids[np.repeat(chosen, lengths)], np.cumsum(lengths[chosen]).astype(np.uint64))
                    num_bytes[side] += int(documents["num_bytes"][chosen].sum())
    if not num_bytes[TRAIN]:
        raise DataError("--valid-fraction: nothing is left to train on; hold out less")
    return {side: writer.finish(num_bytes[side]) for side, writer in writers.items()}


def sum_bytes(pieces: Sequence[Piece], vocab_size: int) -> NDArray[np.int64]:
    """Return how many bytes of text fall into each range of digests."""
    total = bytes_by_bin(np.empty(0, np.uint64), np.empty(0, np.uint64))
    for piece in pieces:
        _, documents = open_piece(piece, vocab_size)
        total += bytes_by_bin(documents["digest"], documents["num_bytes"])
    return total


def blocks(ids: Ids, documents: NDArray[Any]) -> Iterator[tuple[Ids, NDArray[Any]]]:
    """Cut a piece at document ends into parts of about `BLOCK_TOKENS`, each with ends of its own."""
    ends = np.ascontiguousarray(documents["end"])
    start, before = 0, 0
    while start < len(documents):
        stop = int(np.searchsorted(ends, before + BLOCK_TOKENS)) + 1
        part = np.array(documents[start:stop])
        end = int(part["end"][-1])
        part["end"] -= np.uint64(before)
        yield ids[before:end], part
        start, before = min(stop, len(documents)), end
