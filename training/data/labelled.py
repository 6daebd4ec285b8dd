"""Labelled texts out of files: csv, tsv, jsonl, plain or gzipped; one label a text, or several.

What becomes of them is the business of `label_split` and `classification`.
"""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError
from training.data.records import parse_records

TEXT_COLUMNS = ("text", "message", "sms", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")
"""Usual names, in order of preference."""

LARGEST_FIELD = 1 << 24
"""Characters of a field of a table; a longer one is a quote left open."""

Marks = NDArray[np.bool_]
"""Which labels texts have: (texts, labels)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text and the names of its labels: exactly one, or any number of them in sorted order."""

    text: str
    labels: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its only label."""
        (label,) = self.labels
        return label


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row has its text and its label, and how the label is written."""

    text: str | None = None
    label: str | None = None
    """Names of the columns; None: found by their usual names."""
    separator: str | None = None
    """What stands between several labels in one field; None: a text has one label."""
    names: Mapping[str, str] | None = None
    """Better names for some of the labels."""


def read_examples(path: Path, columns: Columns | None = None, *, flag: str = "--data") -> list[Example]:
    """Read labelled texts from `.jsonl`, `.json`, `.csv`, `.tsv`, or lines of label TAB text without a header.

    Tab-separated files know no quotes: a `"` is a character like any other. Any of them may be gzipped (`.gz`).

    Args:
        flag: that named the file, for messages.

    Raises:
        DataError: unreadable, empty, a column is missing, or a row lacks a value.
    """
    columns = columns or Columns()
    place = f"{flag}: {path}"
    content = _read_text(path, place)
    if not content.strip():
        raise DataError(f"{place}: the file is empty")
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind in (".jsonl", ".json"):
        rows = _read_json(content, place, is_list=kind == ".json")
    else:
        is_named = columns.text is not None or columns.label is not None
        rows = _read_table(content, place, is_csv=kind == ".csv", is_named=is_named)
    text_key = _find_column(place, rows[0], columns.text, TEXT_COLUMNS, "--text-column")
    label_key = _find_column(place, rows[0], columns.label, LABEL_COLUMNS, "--label-column")
    return [
        Example(_text(row.get(text_key), f"{place}: row {number}"), _labels(row, label_key, columns, place, number))
        for number, row in enumerate(rows, 1)
    ]


def _read_text(path: Path, place: str) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 at byte {error.start}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{place}: not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{place}: {error.strerror}") from None


def _read_json(content: str, place: str, *, is_list: bool) -> list[dict[str, object]]:
    rows = parse_records(content, place, is_list=is_list)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{place}: row {number} is not an object")
    if not rows:
        raise DataError(f"{place}: there is no row in it")
    return rows


def _read_table(content: str, place: str, *, is_csv: bool, is_named: bool) -> list[dict[str, object]]:
    csv.field_size_limit(LARGEST_FIELD)
    lines = io.StringIO(content, newline="")
    reader = csv.reader(lines, strict=True) if is_csv else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    table = []
    try:
        table += [row for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{place}: line {reader.line_num}: {error}; is a quote left open?") from None
    has_header = is_csv or is_named or any(name.strip().lower() in TEXT_COLUMNS + LABEL_COLUMNS for name in table[0])
    header = [name.strip() for name in table.pop(0)] if has_header else ["label", "text"]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{place}: two columns are called {twice[0]!r}")
    if not table:
        raise DataError(f"{place}: there is a header but no row")
    if not has_header:
        table = [[row[0], "\t".join(row[1:])] if len(row) > 2 else row for row in table]
    for number, row in enumerate(table, 1):
        if len(row) != len(header):
            raise DataError(f"{place}: row {number} has {len(row)} columns instead of {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in table]


def _find_column(place: str, row: dict[str, object], asked: str | None, usual: Sequence[str], flag: str) -> str:
    names = {name.lower(): name for name in row}
    found = [names[name] for name in ([asked.lower()] if asked else usual) if name in names]
    if not found:
        wanted = repr(asked) if asked else "any of " + ", ".join(usual)
        raise DataError(f"{place}: no column {wanted} among {', '.join(row)}; name one with {flag}")
    return found[0]


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} lacks a text")
    return value


def _labels(row: dict[str, object], key: str, columns: Columns, place: str, number: int) -> tuple[str, ...]:
    value = row.get(key)
    is_many = isinstance(value, list)
    if columns.separator is None and is_many:
        raise DataError(f"{place}: row {number} has a list of labels; say --multi-label if texts have several")
    if value is None or (columns.separator is None and not str(value).strip()):
        raise DataError(f"{place}: row {number} lacks a label")
    if not all(isinstance(part, str | int | float) for part in (value if isinstance(value, list) else [value])):
        raise DataError(f"{place}: row {number} has a label that is neither text nor number: {value!r:.60}")
    if isinstance(value, list):
        parts = [str(part) for part in value]
    else:
        parts = str(value).split(columns.separator) if columns.separator is not None else [str(value)]
    names = columns.names or {}
    return tuple(sorted({names.get(part, part) for part in map(str.strip, parts) if part}))


def label_names(examples: Iterable[Example]) -> list[str]:
    """Return the labels in use in order: by value where all are whole numbers, else by name."""
    names = {label for example in examples for label in example.labels}
    is_numbered = all(name.isdecimal() and name.isascii() for name in names)
    return sorted(names, key=lambda name: (int(name) if is_numbered else 0, name))


def mark(examples: Sequence[Example], labels: Sequence[str], *, flag: str = "--data") -> Marks:
    """Return which labels each example has.

    Raises:
        DataError: a label is none of those.
    """
    index = {label: i for i, label in enumerate(labels)}
    marks = np.zeros((len(examples), len(labels)), dtype=np.bool_)
    for row, example in enumerate(examples):
        for label in example.labels:
            if label not in index:
                known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
                raise DataError(f"{flag}: label {label!r} is none of the classifier's: {known}")
            marks[row, index[label]] = True
    return marks
