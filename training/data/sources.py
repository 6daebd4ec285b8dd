"""Documents out of files: text, jsonl, csv, tsv and parquet, plain or gzipped, a bounded part at a time.

A `.txt` file holds documents between `<|endoftext|>` marks, or one. A document of more than 8 MiB is cut at line ends
into documents of about 1 MiB, so that no file must fit into memory. Bad input is an error that names the place, or is
counted and skipped. Nothing here knows tokens.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from training.data.errors import DataError

DOCUMENT_END = "<|endoftext|>"
"""Between two documents of one `.txt` file, as published story sets have it."""

TEXT_COLUMNS = ("text", "content", "story", "message", "sms", "review", "sentence", "document", "body")
"""Usual names of the column that holds the text, in order of preference."""

LONGEST_DOCUMENT = 8 << 20
"""Bytes of a `.txt` document above which it is cut."""

PART_OF_LONG = 1 << 20
"""Bytes of the documents that a longer one becomes."""

LARGEST_FIELD = 64 << 20
"""Characters of a field of a table: a quote left open must not fill the memory with the rest of a file."""

_END = DOCUMENT_END.encode()
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one file that can be read by itself."""

    path: str
    kind: str
    """`txt`, `jsonl`, `csv`, `tsv` or `parquet`."""
    start: int = 0
    """First byte, or first row group of a parquet file."""
    end: int | None = None
    """The byte or row group after the last; None: the end of the file."""
    size: int = 0
    """Bytes of the file that it stands for, to show progress."""
    is_inside: bool = False
    """Whether it begins in the middle of a long document."""


@dataclass(slots=True)
class Reader:
    """How to read: which column, and what to do with what cannot be read."""

    text_column: str | None = None
    skip_errors: bool = False
    num_skipped: int = 0

    def documents(self, part: Slice) -> Iterator[str]:
        """Yield the documents of a slice that hold more than white space.

        Raises:
            DataError: bad input, unless errors are skipped: then it is counted in `num_skipped`.
        """
        try:
            for text in _READERS[part.kind](self, part):
                if text.strip():
                    yield text
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"--data: {part.path}: {getattr(error, 'strerror', None) or error}") from None

    def report(self, part: Slice, place: str) -> None:
        """Count bad input, or refuse it."""
        if not self.skip_errors:
            raise DataError(f"--data: {part.path}: {place}; --on-error skip leaves such places out")
        self.num_skipped += 1

    def pick_column(self, part: Slice, names: Sequence[str]) -> str:
        """Find the column that holds the text among the names of a file's columns.

        Raises:
            DataError: there is none.
        """
        by_lower = {name.lower(): name for name in names}
        wanted = [self.text_column.lower()] if self.text_column else TEXT_COLUMNS
        found = [by_lower[name] for name in wanted if name in by_lower]
        if not found:
            what = repr(self.text_column) if self.text_column else "any of " + ", ".join(TEXT_COLUMNS)
            raise DataError(f"--data: {part.path}: no column {what} among {', '.join(names)}; name one: --text-column")
        return found[0]


def open_slice(part: Slice) -> BinaryIO:
    """Open a slice's file at its first byte, unpacking gzip."""
    if part.path.endswith(".gz"):
        return cast(BinaryIO, gzip.open(part.path, "rb"))
    file = Path(part.path).open("rb")  # noqa: SIM115
    file.seek(part.start)
    return file


def _read_text(reader: Reader, part: Slice) -> Iterator[str]:
    """Cut a text at its marks; white space around marks goes, that at the ends of a file stays."""
    with open_slice(part) as file:
        cutter = _Cutter(part.start, part.is_inside)
        while block := file.read(_BLOCK if part.end is None else min(_BLOCK, part.end - file.tell())):
            yield from cutter.push(block, reader, part)
        yield from cutter.flush(reader, part)


class _Cutter:
    """Bytes in, documents out; holds back what is not yet a whole document."""

    def __init__(self, start: int, is_inside: bool) -> None:
        self._buffer = bytearray()
        self._place = start
        """Where in the file the buffer begins."""
        self._is_long = is_inside
        self._follows_mark = start > 0 and not is_inside

    def push(self, block: bytes, reader: Reader, part: Slice) -> Iterator[str]:
        searched = max(0, len(self._buffer) - len(_END))
        self._buffer += block
        while (mark := self._buffer.find(_END, searched)) >= 0:
            yield from self._take(mark, reader, part, before_mark=True)
            self._drop(len(_END))
            self._is_long, self._follows_mark, searched = False, True, 0
        self._is_long |= len(self._buffer) > LONGEST_DOCUMENT
        while self._is_long and len(self._buffer) > 2 * PART_OF_LONG:
            yield from self._take(self._line_end(), reader, part)
            self._follows_mark = False

    def flush(self, reader: Reader, part: Slice) -> Iterator[str]:
        yield from self._take(len(self._buffer), reader, part)

    def _line_end(self) -> int:
        found = self._buffer.find(b"\n", PART_OF_LONG, 2 * PART_OF_LONG - len(_END)) + 1
        if found:
            return found
        cuts = range(PART_OF_LONG, PART_OF_LONG - 4, -1)
        return next((cut for cut in cuts if self._buffer[cut] & 0xC0 != 0x80), PART_OF_LONG)  # not inside a character

    def _take(self, size: int, reader: Reader, part: Slice, *, before_mark: bool = False) -> Iterator[str]:
        content = bytes(self._buffer[:size])
        if self._place == 0:
            content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            text = content.decode().replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            reader.report(part, f"not UTF-8 at byte {self._place + size - len(content) + error.start}")
        else:
            text = text.lstrip("\n") if self._follows_mark else text
            yield text.rstrip("\n") if before_mark else text
        self._drop(size)

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._place += size


def _lines(reader: Reader, part: Slice) -> Iterator[tuple[int, str]]:
    """Yield the lines of a slice, each with the byte of the file at which it begins."""
    with open_slice(part) as file:
        place = part.start
        for line in file:
            if part.end is not None and place >= part.end:
                return
            try:
                yield place, line.removeprefix(b"" if place else b"\xef\xbb\xbf").decode()
            except UnicodeDecodeError as error:
                reader.report(part, f"{_line(part, place)} is not UTF-8 at byte {place + error.start}")
            place += len(line)


def _line(part: Slice, place: int) -> str:
    """Name a line for an error by counting those before it."""
    number, left = 1, place
    with open_slice(Slice(part.path, part.kind)) as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            number += block.count(b"\n")
            left -= len(block)
    return f"line {number}"


def _read_jsonl(reader: Reader, part: Slice) -> Iterator[str]:
    column = None
    for place, line in _lines(reader, part):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reader.report(part, f"{_line(part, place)} is not JSON: {getattr(error, 'msg', error)}")
            continue
        if not isinstance(row, dict):
            reader.report(part, f"{_line(part, place)} is not an object")
            continue
        column = column or reader.pick_column(part, list(row))
        if fault := _fault(row.get(column)):
            reader.report(part, f"{_line(part, place)} {fault}")
        else:
            yield row[column]


def _fault(text: Any) -> str | None:
    """Say what is wrong with a value that should be a text."""
    if not isinstance(text, str):
        return "has no text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half a character (a lone surrogate)"
    return None


def _read_table(reader: Reader, part: Slice) -> Iterator[str]:
    """Read rows under a header; tab-separated files know no quotes, and may be label TAB text without a header."""
    csv.field_size_limit(LARGEST_FIELD)
    is_csv = part.kind == "csv"
    lines = (line for _, line in _lines(reader, part))
    rows = csv.reader(lines) if is_csv else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    has_header = is_csv or reader.text_column is not None or any(name.lower() in TEXT_COLUMNS for name in header)
    place = header.index(reader.pick_column(part, header)) if header and has_header else len(header) - 1
    if header and not has_header:
        yield header[place]
    number = 1
    try:
        for number, row in enumerate(rows, 2):
            if row and len(row) != len(header):
                reader.report(part, f"row {number} has {len(row)} columns instead of {len(header)}")
            elif row:
                yield row[place]
    except csv.Error as error:
        raise DataError(f"--data: {part.path}: row {number + 1}: {error}; is a quote left open?") from None


def _read_parquet(reader: Reader, part: Slice) -> Iterator[str]:
    import pyarrow as pa  # heavy, and only for this kind
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part.path) as file:
            column = reader.pick_column(part, file.schema_arrow.names)
            stop = file.num_row_groups if part.end is None else part.end
            number = sum(file.metadata.row_group(i).num_rows for i in range(part.start))
            groups = list(range(part.start, stop))
            for batch in file.iter_batches(batch_size=1000, row_groups=groups, columns=[column]):
                for number, text in enumerate(batch.column(0).to_pylist(), number + 1):  # noqa: B020
                    if fault := _fault(text):
                        reader.report(part, f"row {number} {fault}")
                    else:
                        yield text
    except pa.ArrowException as error:
        raise DataError(f"--data: {part.path}: {str(error).splitlines()[0]}") from None


_READERS: dict[str, Callable[[Reader, Slice], Iterator[str]]] = {
    "txt": _read_text,
    "jsonl": _read_jsonl,
    "csv": _read_table,
    "tsv": _read_table,
    "parquet": _read_parquet,
}
