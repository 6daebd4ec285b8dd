"""Token ids on disk and the windows a model reads them through.

A folder of token shards is flat files of uint16 or uint32 ids beside a `manifest.json`; they are memory-mapped, so a
text may be larger than memory. Text and tokenizers belong to `prepare`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.order import EpochOrder
from training.loss import IGNORE_INDEX, Batch

MANIFEST = "manifest.json"

Ids = NDArray[np.unsignedinteger[Any]]
"""Token ids, as they lie in a shard."""


class DataError(ValueError):
    """Data that cannot be trained on; the message names the file and what to do."""


class Shard(BaseModel):
    """One file of token ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    num_tokens: int
    sha256: str


class Manifest(BaseModel):
    """What a folder of token shards says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer_sha256: str
    num_documents: int
    num_tokens: int
    num_bytes: int
    """Length of the text as UTF-8, to turn a loss into bits per byte."""
    shards: tuple[Shard, ...]


def read_manifest(directory: Path) -> Manifest:
    """Read what a folder of shards holds.

    Raises:
        DataError: the manifest is missing or broken.
    """
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; prepare the text again") from None
    except ValidationError as error:
        raise DataError(f"{path}: not a manifest of token shards ({error.error_count()} faults)") from None


def open_shards(directory: Path) -> list[Ids]:
    """Memory-map the shards of a folder, without reading them.

    Raises:
        DataError: a shard is missing or does not have the size the manifest gives.
    """
    manifest = read_manifest(directory)
    dtype = np.dtype(manifest.dtype)
    shards: list[Ids] = []
    for shard in manifest.shards:
        path = directory / shard.file
        size = path.stat().st_size if path.exists() else 0
        if size != shard.num_tokens * dtype.itemsize:
            raise DataError(f"{path}: {size} bytes instead of {shard.num_tokens} {dtype} ids; prepare the text again")
        shards.append(np.memmap(path, dtype=dtype, mode="r"))
    return shards


class TokenWindows:
    """Batches of windows over token ids: the book's sliding window, in a new random order each epoch.

    A window is `block_size` ids and, as targets, the same ids one place later. No window crosses two shards.
    """

    def __init__(self, shards: Sequence[Ids], *, block_size: int, stride: int, batch_size: int, seed: int) -> None:
        counts = [max(0, (len(ids) - block_size - 1) // stride + 1) for ids in shards]
        if sum(counts) == 0:
            longest = max((len(ids) for ids in shards), default=0)
            raise DataError(
                f"the training text has {longest} tokens, too few for one window of {block_size} and its targets; "
                "use more text or a smaller --model.block-size"
            )
        self.shards = shards
        self.block_size = block_size
        self.stride = stride
        self._ends = np.cumsum(counts)
        self._order = EpochOrder(int(self._ends[-1]), batch_size, seed)

    def __len__(self) -> int:
        return self._order.num_items

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step: `idx` and `targets`, each (B, T) int64."""
        rows = torch.from_numpy(np.stack([self._window(int(item)) for item in self._order(step)]))  # (B, T + 1)
        return {"idx": rows[:, :-1], "targets": rows[:, 1:]}

    def _window(self, item: int) -> NDArray[np.int64]:
        shard = int(np.searchsorted(self._ends, item, side="right"))
        place = item - (int(self._ends[shard - 1]) if shard else 0)
        start = place * self.stride
        return self.shards[shard][start : start + self.block_size + 1].astype(np.int64)


def covering_batches(ids: Sequence[int] | Ids, *, block_size: int, batch_size: int, stride: int) -> list[Batch]:
    """Cut ids into windows so that each id but the first is a target exactly once.

    Windows start `stride` apart; where they overlap, only the later places are targets, so that each (but those of
    the first window) is predicted from at least `block_size - stride` ids before it.
    """
    row_of_ids = np.asarray(ids, dtype=np.int64)
    starts = range(0, max(1, len(ids) - 1 - block_size + stride), stride)
    idx = np.zeros((len(starts), block_size), dtype=np.int64)
    targets = np.full((len(starts), block_size), IGNORE_INDEX, dtype=np.int64)
    done = 1  # every id before this one is behind us; the first is never a target
    for row, start in enumerate(starts):
        window = row_of_ids[start : start + block_size + 1]
        idx[row, : len(window) - 1] = window[:-1]
        fresh = slice(done - start - 1, len(window) - 1)
        targets[row, fresh] = window[1:][fresh]
        done = start + len(window)
    return [
        {"idx": torch.from_numpy(idx[i : i + batch_size]), "targets": torch.from_numpy(targets[i : i + batch_size])}
        for i in range(0, len(starts), batch_size)
    ]
