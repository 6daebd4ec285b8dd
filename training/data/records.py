"""Records out of a JSON file: a list in `.json`, or one a line in `.jsonl`.

What a record means is the business of who asked for it.
"""

import json
from pathlib import Path
from typing import Any

from training.data.errors import DataError


def read_records(path: Path, flag: str = "--data") -> list[Any]:
    """Return the records of a file.

    Args:
        flag: that named the file, for messages.

    Raises:
        DataError: unreadable, not JSON, no list, or empty.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{flag}: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{flag}: {path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    records = _lines(path, content, flag) if path.suffix == ".jsonl" else _list(path, content, flag)
    if not records:
        raise DataError(f"{flag}: {path}: is empty")
    return records


def _lines(path: Path, content: str, flag: str) -> list[Any]:
    records = []
    for number, line in enumerate(content.split("\n"), 1):  # not splitlines: JSON strings may hold U+2028
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{flag}: {path}: line {number} is not JSON: {error}") from None
    return records


def _list(path: Path, content: str, flag: str) -> list[Any]:
    if not content.strip():
        return []
    try:
        records = json.loads(content)
    except ValueError as error:
        hint = "; one record a line is named .jsonl" if str(error).startswith("Extra data") else ""
        raise DataError(f"{flag}: {path}: is not JSON: {error}{hint}") from None
    if not isinstance(records, list):
        raise DataError(f"{flag}: {path}: holds no list of records")
    return records
