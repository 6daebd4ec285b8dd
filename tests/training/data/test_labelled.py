import gzip
import json
from pathlib import Path

import pytest

from training.data.errors import DataError
from training.data.labelled import Columns, Example, label_names, mark, read_examples


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_lines_of_label_tab_text_need_no_header_and_know_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "SMSSpamCollection", 'ham\t"Wait, he said\nspam\tWIN "now"\n')
    assert read_examples(path) == [Example('"Wait, he said', ("ham",)), Example('WIN "now"', ("spam",))]


def test_a_tsv_may_have_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\nhello\tgood\nbye\tbad\n")
    assert read_examples(path) == [Example("hello", ("good",)), Example("bye", ("bad",))]


def test_a_csv_has_quotes_and_line_breaks_inside_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,Label,Message\n1,good,"hello,\nworld"\n2,bad,bye\n')
    assert read_examples(path) == [Example("hello,\nworld", ("good",)), Example("bye", ("bad",))]


def test_jsonl_labels_may_be_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"review": "fine", "label": 1}\n\n{"review": "dull", "label": 0}\n')
    assert read_examples(path) == [Example("fine", ("1",)), Example("dull", ("0",))]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,body,kind\nx,hello,a\ny,bye,b\n")
    assert read_examples(path, Columns("body", "kind")) == [Example("hello", ("a",)), Example("bye", ("b",))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "text,label\n", "header but no row"),
        ("a.csv", "text,colour\nx,red\n", "no column any of label, .*--label-column"),
        ("a.csv", "text,label\nx,1,2\ny,2\n", "row 1 has 3 columns instead of 2"),
        ("a.csv", "text,label\nx,spam\n ,ham\n", "row 2 lacks a text"),
        ("a.jsonl", '{"text": "x", "label": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "row 1 is not an object"),
        ("a.jsonl", '{"text": "x", "label": "a"}\n{"text": "y"}\n', "row 2 lacks"),
        ("sms", "ham\thello\nspam\n", "row 2 has 1 columns"),
        ("a.csv", 'text,label\n"x,spam\n' + "y,ham\n" * 3, "is a quote left open"),
        ("a.csv", "text,text,label\nx,y,ham\n", "two columns are called 'text'"),
        ("a.jsonl", '{"text": "x", "label": ["a", "b"]}\n', "row 1 has a list of labels; say --multi-label"),
        ("a.jsonl", '{"text": 7, "label": "a"}\n', "row 1 lacks a text"),
        ("a.jsonl", '{"text": "\\ud800", "label": "a"}\n', "record 1 has half a character"),
        ("a.csv", 'text,label\nx,ham\n"y,spam\nz,ham', "line 4: unexpected end of data; is a quote left open"),
        ("a.csv", 'label,text\nham,"open\nspam,"win"\nham,x\n', "line 3: .* expected after .*; is a quote left open"),
        ("a.json", "[" * 200_000, "is not JSON that can be read"),
        ("a.jsonl", '{"text": "x", "label": {"a": 1}}\n', "row 1 has a label that is neither text nor number"),
        ("a.json", '{"text": ', "is not JSON"),
        ("a.json", "[]", "no row"),
    ],
)
def test_unusable_data_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(write(tmp_path / name, content))


def test_a_missing_column_asked_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,a\ny,b\n")
    with pytest.raises(DataError, match="no column 'body' among text, label; name one with --text-column"):
        read_examples(path, Columns(text="body"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_examples(tmp_path / "gone.csv")


def test_a_list_in_json_holds_rows_as_lines_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "fine", "label": "good"},\n {"text": "dull", "label": "bad"}]')
    assert read_examples(path) == [Example("fine", ("good",)), Example("dull", ("bad",))]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_gzipped_file_is_read_like_the_plain_one(tmp_path: Path, name: str) -> None:
    rows = {
        "csv": "text,label\nx y,ham\n",
        "tsv": "text\tlabel\nx y\tham\n",
        "jsonl": '{"text": "x y", "label": "ham"}\n',
    }
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(rows[name[2:]].encode()))
    assert read_examples(tmp_path / f"{name}.gz") == [Example("x y", ("ham",))]


@pytest.mark.parametrize(
    "content",
    [b"text,label\nx,ham\n", gzip.compress(b"text,label\nx,ham\n" * 99)[:-9]],
    ids=["not-compressed", "cut-short"],
)
def test_a_broken_gzip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_examples(tmp_path / "a.csv.gz")


def test_signs_that_some_take_for_line_ends_stay_in_the_text(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\x0bfour"
    tsv = write(tmp_path / "sms", f"ham\t{odd}\nspam\tx\n")
    jsonl = write(tmp_path / "a.jsonl", json.dumps({"text": odd, "label": "ham"}, ensure_ascii=False) + "\n")
    assert read_examples(tsv)[0] == read_examples(jsonl)[0] == Example(odd, ("ham",))


def test_a_tab_inside_the_text_of_a_headless_file_is_part_of_it(tmp_path: Path) -> None:
    assert read_examples(write(tmp_path / "sms", "ham\ta\tb\nspam\tc\n"))[0] == Example("a\tb", ("ham",))


def test_a_reader_told_a_column_expects_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "kind\tbody\ngood\thello\n")
    assert read_examples(path, Columns("body", "kind")) == [Example("hello", ("good",))]


@pytest.mark.parametrize("header", ["Label \t Text", "kind\tText"])
def test_a_header_is_known_by_its_names_whatever_stands_around_them(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.tsv", f"{header}\ngood\thello\n")
    assert read_examples(path, Columns(label=header.split()[0])) == [Example("hello", ("good",))]


def test_a_reader_told_only_the_column_of_labels_expects_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "kind\tbody\ngood\thello\n")
    with pytest.raises(DataError, match=r"no column any of text, .* among kind, body; name one with --text-column"):
        read_examples(path, Columns(label="kind"))


def test_nothing_is_no_label_among_several(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x", "labels": ["a", null]}\n')
    with pytest.raises(DataError, match="row 1 has a label that is neither text nor number"):
        read_examples(path, Columns(separator=","))


def test_several_labels_are_a_list_or_one_field_and_may_be_none(tmp_path: Path) -> None:
    expected = [Example("x", ("a", "b")), Example("y", ())]
    csv = write(tmp_path / "a.csv", 'text,labels\nx,"b, a,b"\ny,\n')
    assert read_examples(csv, Columns(separator=",")) == expected
    jsonl = write(tmp_path / "a.jsonl", '{"text": "x", "labels": ["b", "a"]}\n{"text": "y", "labels": []}\n')
    assert read_examples(jsonl, Columns(separator=",")) == expected
    piped = write(tmp_path / "b.csv", "text,labels\nx,a|b\ny,\n")
    assert read_examples(piped, Columns(separator="|")) == expected


def test_labels_can_get_better_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,0\ny,1\n")
    assert read_examples(path, Columns(names={"0": "negative"})) == [Example("x", ("negative",)), Example("y", ("1",))]


def test_a_message_names_the_flag_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--test-data: .*gone.csv: No such file"):
        read_examples(tmp_path / "gone.csv", flag="--test-data")


def test_labels_are_in_order_numbers_by_value() -> None:
    assert label_names([Example("x", ("10",)), Example("y", ("9",))]) == ["9", "10"]
    assert label_names([Example("x", ("b",)), Example("y", ("a", "10"))]) == ["10", "a", "b"]


def test_marks_say_which_labels_each_text_has() -> None:
    marks = mark([Example("x", ("b",)), Example("y", ()), Example("z", ("a", "b"))], ["a", "b"])
    assert marks.tolist() == [[False, True], [False, False], [True, True]]
