import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.errors import DataError
from training.data.slices import cut_file, cut_files, find_files
from training.data.sources import DOCUMENT_END, Reader

documents = st.lists(st.text(st.sampled_from("ab \u00e4\u65e5<|"), min_size=1, max_size=30), max_size=30)


def read(path: Path, size: int) -> list[str]:
    return [text for part in cut_file(path, size) for text in Reader().documents(part)]


@given(documents, st.integers(60, 300))
def test_slices_of_a_text_hold_each_document_once(texts: list[str], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_text(DOCUMENT_END.join(texts), encoding="utf-8")
        assert read(path, size) == [text for text in texts if text.strip()]


@given(documents, st.integers(20, 300))
def test_slices_of_lines_hold_each_line_once(texts: list[str], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        assert read(path, size) == [text for text in texts if text.strip()]


def test_slices_cover_a_file_without_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word " * 1000)
    slices = list(cut_file(path, 700))
    assert [part.start for part in slices[1:]] == [part.end for part in slices[:-1]]
    assert (slices[0].start, slices[-1].end) == (0, 5000)
    assert sum(part.size for part in slices) == 5000
    assert len(slices) == 7


def test_row_groups_of_parquet_are_shared_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{i} " * 100 for i in range(20)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=2, compression=None, use_dictionary=False)
    slices = list(cut_file(path, 1500))
    assert 4 <= len(slices) <= 10
    assert read(path, 1500) == texts


def test_small_files_share_a_piece_and_large_ones_are_cut(tmp_path: Path) -> None:
    for name, size in (("a", 300), ("b", 300), ("c", 300), ("d", 2000)):
        (tmp_path / f"{name}.txt").write_text("x\n" * (size // 2))
    pieces = cut_files(find_files([tmp_path]), 1000)
    assert [[Path(part.path).stem for part in piece] for piece in pieces] == [["a", "b", "c"], ["d"], ["d"]]


def test_files_folders_and_globs_are_found_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a/x.jsonl", "a/y.csv.gz", "notes.md", "a/z.bin", "c.parquet.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_files([tmp_path]) == [tmp_path / "a/x.jsonl", tmp_path / "a/y.csv.gz", tmp_path / "b.txt"]
    assert find_files([tmp_path / "*.txt", tmp_path / "notes.md"]) == [tmp_path / "b.txt", tmp_path / "notes.md"]
    assert find_files([tmp_path / "**/*.jsonl"]) == [tmp_path / "a/x.jsonl"]


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: No such file"):
        find_files([tmp_path / "gone.txt"])
    with pytest.raises(DataError, match="no file with text in it"):
        find_files([tmp_path])


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x")
    assert find_files([tmp_path / "b.txt", tmp_path, tmp_path / "*.txt"]) == [tmp_path / "b.txt", tmp_path / "a.txt"]


def test_a_line_longer_than_many_slices_is_looked_through_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b"x" * 10_000 + b"\n", b"short\n", b"y" * 50 + b"\n", b"z" * 9_000]
    path.write_bytes(b"".join(lines))
    assert [part.size for part in cut_file(path, 100)] == [10_001, 6 + 51 + 9_000]
