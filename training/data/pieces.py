"""One piece of the texts to token ids, and a record that it is done: what a worker does, and may be killed at.

Files are written aside and renamed, the record last; a piece with a record is whole. Free of torch: workers are many.
"""

import functools
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.tokenizer import Tokenizer
from training.data.holdout import split_alone, with_digests
from training.data.ids import Ids
from training.data.shards import id_dtype, map_file, sync, write_durably
from training.data.sources import Reader, Slice

DOCUMENT = np.dtype([("end", "<u8"), ("num_bytes", "<u8"), ("digest", "<u8")])
"""What is known of each document: where its ids end, the length of its text as UTF-8, and a digest of it."""

BUFFERED_CHARACTERS = 1 << 20
"""Text gathered before it is encoded and written."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a worker is told."""

    number: int
    slices: tuple[Slice, ...]
    folder: Path
    """Where its files go."""
    tokenizer: Path
    """Directory of the tokenizer."""
    valid_fraction: float
    is_alone: bool
    """Whether this piece is all there is, so that a single document can be cut in two."""
    text_column: str | None = None
    skip_errors: bool = False

    @property
    def num_source_bytes(self) -> int:
        """Bytes of the sources it stands for."""
        return sum(part.size for part in self.slices)

    def file(self, suffix: str) -> Path:
        """Return one of its files: `.ids`, `.documents`, or the record, `.json`."""
        return self.folder / f"{self.number:06d}{suffix}"


class PieceRecord(BaseModel):
    """What a finished piece holds."""

    model_config = ConfigDict(extra="forbid")

    num_documents: int
    num_tokens: int
    num_skipped: int


def finished(piece: Piece) -> PieceRecord | None:
    """Return the record of a piece if it is done."""
    record = piece.file(".json")
    return PieceRecord.model_validate_json(record.read_bytes()) if record.exists() else None


def tokenize_piece(piece: Piece) -> PieceRecord:
    """Read, encode and write one piece.

    Raises:
        DataError: bad input.
        OSError: it cannot be written; nothing that looks finished is left.
    """
    if multiprocessing.parent_process() is not None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is one of us for each processor
    tokenizer = _load(piece.tokenizer)
    reader = Reader(piece.text_column, piece.skip_errors)
    writer = _Writer(piece, tokenizer)
    try:
        for digest, text in read_piece(piece, reader):
            writer.write(digest, text)
        writer.finish()
    finally:
        writer.clean_up()
    record = PieceRecord(
        num_documents=writer.num_documents, num_tokens=writer.num_tokens, num_skipped=reader.num_skipped
    )
    write_durably(piece.file(".json"), record.model_dump_json().encode())
    return record


def read_piece(piece: Piece, reader: Reader) -> Iterator[tuple[int, str]]:
    """Yield the documents of a piece with their digests, in order."""
    documents = (text for part in piece.slices for text in reader.documents(part))
    return split_alone(documents, piece.valid_fraction) if piece.is_alone else with_digests(documents)


def open_piece(piece: Piece, vocab_size: int) -> tuple[Ids, NDArray[Any]]:
    """Memory-map the ids and the documents (`DOCUMENT`) of a finished piece."""
    return map_file(piece.file(".ids"), id_dtype(vocab_size)), map_file(piece.file(".documents"), DOCUMENT)


@functools.lru_cache(maxsize=1)
def _load(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


class _Writer:
    """The ids and documents of one piece, on their way to the disk."""

    def __init__(self, piece: Piece, tokenizer: Tokenizer) -> None:
        self.num_documents = 0
        self.num_tokens = 0
        self._places = [piece.file(suffix) for suffix in (".ids", ".documents")]
        self._asides = [place.with_name(f"{place.name}.{os.getpid()}.part") for place in self._places]
        self._files: list[BinaryIO] = [aside.open("wb") for aside in self._asides]
        self._tokenizer = tokenizer
        self._dtype = id_dtype(tokenizer.vocab_size)
        self._begin = np.array(tokenizer.bos_ids, self._dtype)
        self._end = np.array([tokenizer.eos_id], self._dtype)
        self._waiting: list[tuple[int, str]] = []
        self._num_waiting = 0

    def write(self, digest: int, text: str) -> None:
        """Append a document: what the model expects before a text, its ids, and the end token."""
        self._waiting.append((digest, text))
        self._num_waiting += len(text)
        if self._num_waiting > BUFFERED_CHARACTERS:
            self._flush()

    def finish(self) -> None:
        """Bring the files to the disk under their names."""
        self._flush()
        for file, aside, place in zip(self._files, self._asides, self._places, strict=True):
            sync(file)
            file.close()
            aside.replace(place)

    def clean_up(self) -> None:
        """Remove what was not finished."""
        for file, aside in zip(self._files, self._asides, strict=True):
            file.close()
            aside.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._waiting:
            return
        encoded = self._tokenizer.encode_batch([text for _, text in self._waiting])
        parts = [part for ids in encoded for part in (self._begin, ids.astype(self._dtype), self._end)]
        documents = np.empty(len(encoded), DOCUMENT)
        documents["end"] = self.num_tokens + np.cumsum([len(ids) + len(self._begin) + 1 for ids in encoded])
        documents["num_bytes"] = [len(text) if text.isascii() else len(text.encode()) for _, text in self._waiting]
        documents["digest"] = [digest for digest, _ in self._waiting]
        self._files[0].write(np.concatenate(parts).data)
        self._files[1].write(documents.tobytes())
        self.num_documents += len(documents)
        self.num_tokens = int(documents["end"][-1])
        self._waiting, self._num_waiting = [], 0
