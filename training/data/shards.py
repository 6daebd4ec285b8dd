"""Token shards on disk, in datatrove's format: written whole, opened without being read.

A shard is `NAME.ds`, flat little-endian uint16 or uint32 ids; `NAME.ds.index`, uint64 places where its documents end;
and `NAME.ds.metadata`, three lines of text. A folder of ours also holds `manifest.json`, written last, so that a
folder with one is whole; a folder that a datatrove run wrote has none and is read as well. Tokenizers and texts belong
to others. Source of the format: datatrove/pipeline/tokens/tokenizer.py, class TokenizedFile.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.errors import DataError
from training.data.ids import Ends, Ids, IdType

MANIFEST = "manifest.json"
SUFFIX = ".ds"
INDEX_TYPE = np.dtype("<u8")


class Shard(BaseModel):
    """One file of token ids with its index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    num_tokens: int
    num_documents: int
    sha256: str
    index_sha256: str


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


@dataclass(frozen=True, slots=True)
class TokenFile:
    """One shard, memory-mapped: its ids, and where its documents end."""

    ids: Ids
    ends: Ends


def id_dtype(vocab_size: int) -> IdType:
    """Return the smaller type if it holds every id, as datatrove does."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class ShardWriter:
    """Write documents one after another as shards of a folder, each cut at the first document end past a size."""

    def __init__(
        self, folder: Path, *, vocab_size: int, tokenizer_sha256: str, tokenizer_name: str, shard_tokens: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dtype = id_dtype(vocab_size)
        self._shard_tokens = shard_tokens
        self._name = tokenizer_name
        self._about = {"vocab_size": vocab_size, "tokenizer_sha256": tokenizer_sha256}
        self._shards: list[Shard] = []
        self._open: _OpenShard | None = None

    def write(self, ids: Ids, ends: Ends) -> None:
        """Append whole documents: their ids, and where in `ids` each of them ends."""
        start = 0
        while start < len(ends):
            shard = self._open = self._open or _OpenShard(self._next_file())
            before = int(ends[start - 1]) if start else 0
            room = before + self._shard_tokens - shard.num_tokens
            stop = min(int(np.searchsorted(ends, room, side="left")) + 1, len(ends))
            shard.write(ids[before : int(ends[stop - 1])].astype(self._dtype, copy=False), ends[start:stop] - before)
            start = stop
            if shard.num_tokens >= self._shard_tokens:
                self._finish_shard()

    def finish(self, num_bytes: int) -> Manifest:
        """Close the last shard and write the manifest of the whole folder; `num_bytes` of text lie in it."""
        self._finish_shard()
        manifest = Manifest.model_validate(
            {
                **self._about,
                "dtype": "uint16" if self._dtype.itemsize == 2 else "uint32",
                "num_documents": sum(shard.num_documents for shard in self._shards),
                "num_tokens": sum(shard.num_tokens for shard in self._shards),
                "num_bytes": num_bytes,
                "shards": tuple(self._shards),
            }
        )
        write_durably(self._folder / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
        return manifest

    def _next_file(self) -> Path:
        return self._folder / f"{len(self._shards):05d}_tokens{SUFFIX}"

    def _finish_shard(self) -> None:
        if self._open is not None:
            shard = self._open.close()
            about = f"{self._name}|{self._dtype.itemsize}\n{shard.num_tokens}\n{shard.num_tokens / 1e6:.3g} MT"
            write_durably(self._folder / f"{shard.file}.metadata", about.encode())
            self._shards.append(shard)
            self._open = None


class _OpenShard:
    """A shard that is being written, with running checksums."""

    def __init__(self, path: Path) -> None:
        self.num_tokens = 0
        self._num_documents = 0
        self._path = path
        self._files = (path.open("wb"), path.with_name(path.name + ".index").open("wb"))
        self._digests = (hashlib.sha256(), hashlib.sha256())

    def write(self, ids: Ids, ends: Ends) -> None:
        absolute = (ends + np.uint64(self.num_tokens)).astype(INDEX_TYPE, copy=False)
        for file, digest, array in zip(self._files, self._digests, (ids, absolute), strict=True):
            content = np.ascontiguousarray(array).data
            file.write(content)
            digest.update(content)
        self.num_tokens += len(ids)
        self._num_documents += len(ends)

    def close(self) -> Shard:
        for file in self._files:
            sync(file)
            file.close()
        digests = [digest.hexdigest() for digest in self._digests]
        return Shard(
            file=self._path.name,
            num_tokens=self.num_tokens,
            num_documents=self._num_documents,
            sha256=digests[0],
            index_sha256=digests[1],
        )


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file aside, bring it to the disk, and rename it: it is there whole or not at all."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        file.write(content)
        sync(file)
    aside.replace(path)


def sync(file: BinaryIO) -> None:
    """Bring a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files, and the files of one level, to the disk."""
    for path in (*(file for file in folder.iterdir() if file.is_file()), folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def is_token_folder(path: Path) -> bool:
    """Say whether a folder holds token shards, ours or datatrove's."""
    return path.is_dir() and ((path / MANIFEST).exists() or any(path.glob(f"*{SUFFIX}")))


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder of shards holds.

    Raises:
        DataError: the manifest is missing or broken.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; prepare the text again") from None
    except ValidationError as error:
        raise DataError(f"{path}: not a manifest of token shards ({error.error_count()} faults)") from None


def open_shards(folder: Path) -> list[TokenFile]:
    """Memory-map the shards of a folder with a manifest, without reading them.

    Raises:
        DataError: a shard is missing or does not have the size the manifest gives.
    """
    manifest = read_manifest(folder)
    return [_open_shard(folder, shard, np.dtype(manifest.dtype)) for shard in manifest.shards]


def _open_shard(folder: Path, shard: Shard, dtype: IdType) -> TokenFile:
    path = folder / shard.file
    ids, ends = map_file(path, dtype), map_file(path.with_name(path.name + ".index"), INDEX_TYPE)
    if len(ids) != shard.num_tokens or len(ends) != shard.num_documents:
        raise DataError(
            f"{path}: {len(ids)} ids of {len(ends)} documents instead of {shard.num_tokens} of {shard.num_documents}; "
            "prepare the text again"
        )
    return _fitting(path, ids, ends)


def verify_shards(folder: Path) -> None:
    """Read the shards of a folder with a manifest, and hold them to the checksums they were written with.

    Raises:
        DataError: naming the first file that is missing or has changed.
    """
    for shard in read_manifest(folder).shards:
        path = folder / shard.file
        for file, sha256 in ((path, shard.sha256), (path.with_name(path.name + ".index"), shard.index_sha256)):
            try:
                with file.open("rb") as content:
                    found = hashlib.file_digest(content, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"{file}: {error.strerror}; prepare the text again") from None
            if found != sha256:
                raise DataError(f"{file}: not what was written: its checksum is another; prepare the text again")


def open_datatrove(folder: Path, vocab_size: int) -> list[TokenFile]:
    """Memory-map the shards that a datatrove run wrote below a folder, in order of name.

    The size of an id is what the metadata beside a shard says; without metadata the vocabulary decides.

    Raises:
        DataError: a shard and its index do not fit each other.
    """
    return [_open_foreign(path, vocab_size) for path in sorted(folder.rglob(f"*{SUFFIX}"))]


def _open_foreign(path: Path, vocab_size: int) -> TokenFile:
    dtype = np.dtype(f"<u{_token_size(path)}") if _token_size(path) else id_dtype(vocab_size)
    ids = map_file(path, dtype)
    index = path.with_name(path.name + ".index")
    ends = map_file(index, INDEX_TYPE) if index.exists() else np.array([len(ids)], dtype=INDEX_TYPE)
    return _fitting(path, ids, ends)


def _fitting(path: Path, ids: Ids, ends: Ends) -> TokenFile:
    """Put ids and index together if they fit."""
    last = int(ends[-1]) if len(ends) else 0
    if last != len(ids):
        raise DataError(
            f"{path}: its index ends at token {last}, but there are {len(ids)} ids of {ids.dtype.itemsize} bytes; "
            "is --tokenizer the one it was written with?"
        )
    if np.any(ends[1:] < ends[:-1]):
        raise DataError(f"{path}.index: the ends of documents are not in ascending order; prepare the text again")
    return TokenFile(ids, ends)


def _token_size(path: Path) -> int | None:
    """Read the size of an id from the end of the first line of `NAME.ds.metadata`."""
    metadata = path.with_name(path.name + ".metadata")
    if not metadata.exists():
        return None
    size = metadata.read_text("utf-8").split("\n")[0].rpartition("|")[2]
    return int(size) if size in ("2", "4") else None


def map_file(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    size = path.stat().st_size if path.exists() else 0
    if size % dtype.itemsize:
        raise DataError(f"{path}: {size} bytes are no whole number of ids; prepare the text again")
    if not size:
        return np.empty(0, dtype)  # nothing cannot be mapped
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)  # slices of a plain array are made much faster
