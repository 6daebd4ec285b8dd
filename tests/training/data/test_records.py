import json
from pathlib import Path

import pytest

from training.data.errors import DataError
from training.data.records import read_records


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_records_come_as_a_list_or_one_a_line(tmp_path: Path, name: str) -> None:
    records = [{"a": "one\u2028line"}, {"a": [1, 2]}]
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n"
    (tmp_path / name).write_text(lines if name.endswith("l") else json.dumps(records), encoding="utf-8-sig")
    assert read_records(tmp_path / name) == records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "a.json: is empty"),
        ("a.jsonl", b"\n\n", "a.jsonl: is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b'{"a": 1}', "holds no list of records"),
        ("a.json", b'{"a": 1}\n{"a": 2}', "one record a line is named .jsonl"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("a.json", b'["\xff"]', "is not UTF-8"),
        ("a.json", b"[" * 200_000, "is not JSON that can be read"),
        ("a.json", b'["fine \\ud83e\\udd8a", {"a": "half \\ud83e"}]', "record 2 has half a character"),
        ("a.jsonl", b'{"a": "\\uDC00"}', "record 1 has half a character"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / name)


def test_a_file_that_is_not_there_is_named_with_its_flag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--valid-data: .*nothing.json: No such file"):
        read_records(tmp_path / "nothing.json", "--valid-data")
