import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.errors import DataError
from training.data.slices import cut_file
from training.data.sources import LONGEST_DOCUMENT, PART_OF_LONG, Reader

TEXTS = ["One,\n\u65e5\u672c.", 'Two "quoted"\ttext.', "Three."]


def read(path: Path, size: int = 1 << 20, **options: object) -> list[str]:
    reader = Reader(**options)  # type: ignore[arg-type]
    return [text for part in cut_file(path, size) for text in reader.documents(part)]


def write_kind(folder: Path, kind: str) -> Path:
    """Write the three texts as one kind of file, with a column beside them where there are columns."""
    path = folder / f"texts.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"id": [1, 2, 3], "text": TEXTS}), path, row_group_size=2)
        return path
    quoted = "".join('{},"{}"\n'.format(i, text.replace('"', '""')) for i, text in enumerate(TEXTS))
    contents = {
        "txt": "<|endoftext|>".join(f"\n{text}\n" for text in TEXTS).strip("\n"),
        "jsonl": "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)),
        "csv": f"id,text\n{quoted}",
    }
    content = contents[kind.removesuffix(".gz")].encode()
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet", "txt.gz", "jsonl.gz", "csv.gz"])
def test_each_kind_of_file_holds_the_same_documents(tmp_path: Path, kind: str) -> None:
    assert read(write_kind(tmp_path, kind)) == TEXTS


def test_tab_separated_lines_know_no_quotes_and_need_no_header(tmp_path: Path) -> None:
    path = tmp_path / "sms.tsv"
    path.write_text('ham\t"Wait, he said\nspam\tWIN "now"\n')
    assert read(path) == ['"Wait, he said', 'WIN "now"']
    path.write_text("label\ttext\nham\tHello\n")
    assert read(path) == ["Hello"]


def test_a_single_text_is_one_document_to_the_last_character(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_bytes(b"\xef\xbb\xbf\nOnce.\r\nTwice.\n\n")
    assert read(path) == ["\nOnce.\nTwice.\n\n"]


def test_line_breaks_around_marks_belong_to_no_document(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n \n<|endoftext|>Three.\n")
    assert read(path) == ["One.", "Two.", "Three.\n"]


def test_a_column_can_be_named_and_its_usual_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Story,body\nx,hello\n")
    assert read(path) == ["x"]
    assert read(path, text_column="BODY") == ["hello"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ab\xff", r"a\.txt: not UTF-8 at byte 2"),
        ("a.txt", b"fine<|endoftext|>\xe6\x97", r"a\.txt: not UTF-8 at byte 17"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', "line 3 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', "line 2 is not an object"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2 has no text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1 has half a character"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2 is not UTF-8 at byte 24"),
        ("a.jsonl", b'{"txt": "x"}\n', "no column any of text, .* among txt; name one: --text-column"),
        ("a.csv", b"id,text\n1,x\n2\n", "row 3 has 1 columns instead of 2"),
        ("a.csv", b"id,words\n1,x\n", "no column any of"),
        ("a.txt.gz", b"no gzip", r"a\.txt\.gz: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], r"a\.txt\.gz: Compressed file ended"),
        ("a.parquet", b"no parquet", r"a\.parquet: "),
    ],
)
def test_bad_input_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_row_of_parquet_without_text_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 50, "b" * 50, "c" * 50, None]}), path, row_group_size=1)
    assert len(list(cut_file(path, 1))) == 4
    with pytest.raises(DataError, match="row 4 has no text"):
        read(path, size=1)


def test_bad_places_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x"}\n{"text": \n{"text": "\xff"}\n{"text": "y"}\n')
    reader = Reader(skip_errors=True)
    (part,) = cut_file(path, 1 << 20)
    assert list(reader.documents(part)) == ["x", "y"]
    assert reader.num_skipped == 2


def test_a_quote_left_open_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.sources.LARGEST_FIELD", 1000)
    path = tmp_path / "a.csv"
    path.write_text('text\nfine\n"' + "open\n" * 999)
    with pytest.raises(DataError, match=r"row 3: field larger .* is a quote left open"):
        read(path)


@pytest.mark.parametrize("name", ["long.txt", "long.txt.gz"])
def test_a_text_longer_than_memory_allows_becomes_documents_that_end_at_lines(tmp_path: Path, name: str) -> None:
    lines = "".join(f"{i:07d} \u00e4 line of a text that never ends\n" for i in range(18 * PART_OF_LONG // 40))
    content = ("short\n<|endoftext|>\n" + lines).encode()
    assert len(content) > LONGEST_DOCUMENT
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    documents = read(path, size=LONGEST_DOCUMENT)
    assert documents[0] == "short"
    assert "".join(documents[1:]) == lines
    assert all(text.endswith("\n") for text in documents[1:])
    assert max(len(text.encode()) for text in documents) <= LONGEST_DOCUMENT
    assert len(documents) > 9


def test_a_text_of_a_few_megabytes_stays_one_document(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("A line of a novel.\n" * 200_000)
    assert len(read(path, size=8 << 20)) == 1


def test_a_long_run_of_bytes_that_are_no_text_is_left_out_and_comes_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "damaged.txt"
    path.write_bytes(b"a" + b"\x80" * (LONGEST_DOCUMENT + 3 * PART_OF_LONG) + b"\n")
    reader = Reader(skip_errors=True)
    found = [text for part in cut_file(path, 1 << 30) for text in reader.documents(part)]
    assert not found
    assert reader.num_skipped > 1
