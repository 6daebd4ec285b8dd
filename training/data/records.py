"""Records out of a JSON file: a list in `.json`, or one a line in `.jsonl`.

What a record means is the business of who asked for it.
"""

import json
import re
from pathlib import Path
from typing import Any

from training.data.errors import DataError

HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""What a lone surrogate looks like in JSON, and any character beyond U+FFFF too."""


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
    records = parse_records(content, f"{flag}: {path}", is_list=path.suffix.lower() != ".jsonl")
    if not records:
        raise DataError(f"{flag}: {path}: is empty")
    return records


def parse_records(content: str, place: str, *, is_list: bool) -> list[Any]:
    """Return the records of a file's content, which may be none.

    Args:
        place: flag and path of the file; leads messages.
        is_list: whether the records are one list, instead of one a line.

    Raises:
        DataError: not JSON, no list, or a text with half a character, which no tokenizer could encode.
    """
    if is_list:
        records = _list(content, place)
    else:
        lines = enumerate(content.split("\n"), 1)  # not splitlines: JSON strings may hold U+2028
        records = [_parse(line, f"{place}: line {number}") for number, line in lines if line.strip()]
    if HALF_CHARACTER.search(content):
        for number, record in enumerate(records, 1):
            try:
                json.dumps(record, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise DataError(f"{place}: record {number} has half a character (a lone surrogate) in a text") from None
    return records


def _list(content: str, place: str) -> list[Any]:
    if not content.strip():
        return []
    records = _parse(content, f"{place}:", if_more="; one record a line is named .jsonl")
    if not isinstance(records, list):
        raise DataError(f"{place}: holds no list of records")
    return records


def _parse(content: str, place: str, if_more: str = "") -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        hint = if_more if str(error).startswith("Extra data") else ""
        raise DataError(f"{place} is not JSON: {error}{hint}") from None
    except RecursionError:
        raise DataError(f"{place} is not JSON that can be read: too deep") from None
