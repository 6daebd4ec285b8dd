from collections import Counter
from pathlib import Path

import pytest
import torch

from model.tokenizer import Tokenizer
from training.data.classification import (
    Example,
    TextBatches,
    balanced,
    class_sizes,
    read_examples,
    split_examples,
    without_duplicates,
)
from training.data.errors import DataError


def make_examples(**sizes: int) -> list[Example]:
    return [Example(f"{label} text number {i}", label) for label, size in sizes.items() for i in range(size)]


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_lines_of_label_tab_text_need_no_header_and_know_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "SMSSpamCollection", 'ham\t"Wait, he said\nspam\tWIN "now"\n')
    assert read_examples(path) == [Example('"Wait, he said', "ham"), Example('WIN "now"', "spam")]


def test_a_tsv_may_have_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\nhello\tgood\nbye\tbad\n")
    assert read_examples(path) == [Example("hello", "good"), Example("bye", "bad")]


def test_a_csv_has_quotes_and_line_breaks_inside_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,Label,Message\n1,good,"hello,\nworld"\n2,bad,bye\n')
    assert read_examples(path) == [Example("hello,\nworld", "good"), Example("bye", "bad")]


def test_jsonl_labels_may_be_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"review": "fine", "label": 1}\n\n{"review": "dull", "label": 0}\n')
    assert read_examples(path) == [Example("fine", "1"), Example("dull", "0")]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,body,kind\nx,hello,a\ny,bye,b\n")
    assert read_examples(path, "body", "kind") == [Example("hello", "a"), Example("bye", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "text,label\n", "header but no row"),
        ("a.csv", "text,colour\nx,red\n", "no column any of label, class.*--label-column"),
        ("a.csv", "text,label\nx,1,2\ny,2\n", "row 1 has 3 columns instead of 2"),
        ("a.csv", "text,label\nx,spam\ny,spam\n", "every label is 'spam'"),
        ("a.csv", "text,label\nx,spam\n ,ham\n", "row 2 lacks a text"),
        ("a.jsonl", '{"text": "x", "label": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not an object"),
        ("a.jsonl", '{"text": "x", "label": "a"}\n{"text": "y"}\n', "row 2 lacks"),
        ("sms", "ham\thello\nspam\n", "row 2 has 1 columns"),
    ],
)
def test_unusable_data_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(write(tmp_path / name, content))


def test_a_missing_column_asked_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,a\ny,b\n")
    with pytest.raises(DataError, match="no column 'body' among text, label; name one with --text-column"):
        read_examples(path, text_column="body")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_examples(tmp_path / "gone.csv")


def test_the_first_of_repeated_texts_is_kept() -> None:
    examples = [Example("a", "ham"), Example("b", "ham"), Example("a", "spam"), Example("a", "ham")]
    assert without_duplicates(examples) == [Example("a", "ham"), Example("b", "ham")]


def test_balancing_keeps_the_smallest_class_and_as_many_of_the_others() -> None:
    chosen = balanced(make_examples(ham=50, spam=7, other=20), seed=1)
    assert class_sizes(chosen) == "ham 7, other 7, spam 7"
    assert len(set(chosen)) == 21
    assert chosen != balanced(make_examples(ham=50, spam=7, other=20), seed=2)


def test_a_split_shares_nothing_loses_nothing_and_keeps_the_classes_shares() -> None:
    examples = make_examples(ham=100, spam=30)
    split = split_examples(examples, 0.1, 0.2, seed=5)
    assert Counter(split.train + split.valid + split.test) == Counter(examples)
    assert class_sizes(split.train) == "ham 70, spam 21"
    assert class_sizes(split.valid) == "ham 10, spam 3"
    assert class_sizes(split.test) == "ham 20, spam 6"


def test_the_book_s_split_of_747_and_747_has_its_sizes() -> None:
    split = split_examples(make_examples(ham=747, spam=747), 0.1, 0.2, seed=123)
    assert [len(split.train), len(split.valid), len(split.test)] == [1046, 150, 298]


def test_a_split_depends_on_its_seed_alone() -> None:
    examples = make_examples(ham=20, spam=20)
    assert split_examples(examples, 0.2, 0.2, seed=5) == split_examples(examples, 0.2, 0.2, seed=5)
    assert split_examples(examples, 0.2, 0.2, seed=5) != split_examples(examples, 0.2, 0.2, seed=6)


def test_a_class_too_small_to_split_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="class 'rare' has 2 texts"):
        split_examples(make_examples(common=50, rare=2), 0.1, 0.2, seed=0)


def test_batches_are_padded_on_the_right_to_their_longest_text(tokenizer: Tokenizer) -> None:
    examples = [Example("The fox", "a"), Example("The quick brown fox jumps", "b")]
    (batch,) = TextBatches(examples, ["a", "b"], tokenizer, max_length=99).in_order(8)
    lengths = [len(tokenizer.encode(example.text)) for example in examples]
    assert batch["lengths"].tolist() == lengths
    assert batch["labels"].tolist() == [0, 1]
    assert batch["idx"].shape == (2, max(lengths))
    assert batch["idx"][0, : lengths[0]].tolist() == tokenizer.encode("The fox")
    assert (batch["idx"][0, lengths[0] :] == tokenizer.pad_id).all()


def test_long_texts_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    examples = [Example("The fox", "a"), Example("The quick brown fox jumps", "b")]
    texts = TextBatches(examples, ["a", "b"], tokenizer, max_length=3)
    assert texts.num_cut == sum(len(tokenizer.encode(example.text)) > 3 for example in examples) > 0
    assert max(map(len, texts.ids)) == 3


def test_an_epoch_of_shuffled_batches_holds_every_text(tokenizer: Tokenizer) -> None:
    examples = make_examples(ham=40, spam=40)
    texts = TextBatches(examples, ["ham", "spam"], tokenizer, max_length=99)
    batches = texts.shuffled(5, seed=0)
    rows = [
        tuple(row[:n].tolist()) for b in map(batches, range(16)) for row, n in zip(b["idx"], b["lengths"], strict=True)
    ]
    assert Counter(rows) == Counter(map(tuple, texts.ids))
    assert torch.equal(batches(3)["idx"], texts.shuffled(5, seed=0)(3)["idx"])


def test_a_label_the_classifier_does_not_know_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="label 'egg' is none of the classifier's: ham, spam"):
        TextBatches([Example("x", "egg")], ["ham", "spam"], tokenizer, max_length=9)
