"""Which files are meant, and where to cut them so that each part can be read by itself.

The cuts depend on the files alone, never on who reads them: results do not depend on the number of workers.
"""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from training.data.errors import DataError
from training.data.sources import DOCUMENT_END, Slice

KINDS = {
    ".txt": "txt",
    ".text": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
SLICE_BYTES = 8 << 20
"""Bytes of text that one slice holds, as far as documents allow."""


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that some files, folders and globs stand for, in order of name within each; each file once.

    Raises:
        DataError: something is not there, or a folder holds nothing that can be read.
    """
    found = [file for path in paths for file in _expand(path)]
    firsts: dict[Path, Path] = {}
    for file in found:
        firsts.setdefault(file.resolve(), file)
    return list(firsts.values())


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if kind_of(file) and file.is_file()]
        if not found:
            raise DataError(f"--data: {path}: no file with text in it ({', '.join(KINDS)}, also .gz)")
        return found
    if path.exists():
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise DataError(f"--data: {path}: No such file or directory")
    return [file for each in found for file in _expand(each)]


def kind_of(path: Path) -> str | None:
    """Return how a file is to be read, by its name."""
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    return None if suffix == ".parquet" and path.suffix == ".gz" else KINDS.get(suffix)


def cut_files(files: Iterable[Path], size: int = SLICE_BYTES) -> list[list[Slice]]:
    """Cut large files and gather small ones into pieces of about `size` bytes, in order.

    Raises:
        DataError: a file cannot be read.
    """
    pieces: list[list[Slice]] = []
    room = 0
    for file in files:
        try:
            slices = list(cut_file(file, size))
        except OSError as error:
            raise DataError(f"--data: {file}: {error.strerror}") from None
        for part in slices:
            if part.size > room or not pieces:
                pieces.append([])
                room = size
            pieces[-1].append(part)
            room -= part.size
    return pieces


def cut_file(path: Path, size: int) -> Iterator[Slice]:
    """Cut one file: texts at marks or lines, jsonl at lines, parquet at row groups; others are one slice.

    Raises:
        DataError: a parquet file is broken.
    """
    kind = kind_of(path) or "txt"
    num_bytes = path.stat().st_size
    if path.suffix == ".gz" or kind in ("csv", "tsv") or num_bytes <= size:
        yield Slice(str(path), kind, size=num_bytes)
    elif kind == "parquet":
        yield from _cut_parquet(path, size)
    else:
        starts = [Slice(str(path), kind), *_later_slices(path, kind, size, num_bytes)]
        ends = [*(part.start for part in starts[1:]), num_bytes]
        for part, end in zip(starts, ends, strict=True):
            yield replace(part, end=end, size=end - part.start)


def _later_slices(path: Path, kind: str, size: int, num_bytes: int) -> Iterator[Slice]:
    """Look for a border behind each multiple of `size`."""
    last = 0
    with path.open("rb") as file:
        for goal in range(size, num_bytes, size):
            if goal < last:
                continue  # inside a line longer than a slice
            file.seek(goal)
            border, is_inside = _next_line(file) if kind == "jsonl" else _next_document(file, size)
            if border >= num_bytes:
                return
            yield Slice(str(path), kind, border, is_inside=is_inside)
            last = border


def _next_line(file: BinaryIO) -> tuple[int, bool]:
    file.readline()
    return file.tell(), False


def _next_document(file: BinaryIO, size: int) -> tuple[int, bool]:
    """Return where the next document begins, or, inside one longer than a slice, the next line or character."""
    start = file.tell()
    block = file.read(size)
    if (mark := block.find(DOCUMENT_END.encode())) >= 0:
        return start + mark + len(DOCUMENT_END), False
    if len(block) < size:
        return start + len(block), True  # the rest of the file belongs to the document before
    if newline := block.find(b"\n") + 1:
        return start + newline, True
    return start + next((i for i, byte in enumerate(block[:4]) if byte & 0xC0 != 0x80), 4), True


def _cut_parquet(path: Path, size: int) -> Iterator[Slice]:
    import pyarrow as pa  # heavy, and only for this kind
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except pa.ArrowException as error:
        raise DataError(f"--data: {path}: {str(error).splitlines()[0]}") from None
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    start = 0
    for end in range(1, len(sizes) + 1):
        if sum(sizes[start:end]) >= size or end == len(sizes):
            share = path.stat().st_size * sum(sizes[start:end]) // max(1, sum(sizes))
            yield Slice(str(path), "parquet", start, end, share)
            start = end
