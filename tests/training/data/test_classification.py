from collections import Counter

import pytest
import torch

from model.tokenizer import Tokenizer
from training.data.classification import TextBatches
from training.data.errors import DataError
from training.data.labelled import Example


def make_examples(**sizes: int) -> list[Example]:
    return [Example(f"{label} text number {i}", (label,)) for label, size in sizes.items() for i in range(size)]


def test_batches_are_padded_on_the_right_to_their_longest_text(tokenizer: Tokenizer) -> None:
    examples = [Example("The fox", ("a",)), Example("The quick brown fox jumps", ("b",))]
    (batch,) = TextBatches(examples, ["a", "b"], tokenizer, max_length=99).in_order(8)
    lengths = [len(tokenizer.encode(example.text)) for example in examples]
    assert batch["lengths"].tolist() == lengths
    assert batch["labels"].tolist() == [0, 1]
    assert "weights" not in batch
    assert batch["idx"].shape == (2, max(lengths))
    assert batch["idx"][0, : lengths[0]].tolist() == tokenizer.encode("The fox")
    assert (batch["idx"][0, lengths[0] :] == tokenizer.pad_id).all()


def test_long_texts_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    examples = [Example("The fox", ("a",)), Example("The quick brown fox jumps", ("b",))]
    texts = TextBatches(examples, ["a", "b"], tokenizer, max_length=3)
    assert texts.num_cut == sum(len(tokenizer.encode(example.text)) > 3 for example in examples) > 0
    assert max(map(len, texts.ids)) == 3
    whole = tokenizer.encode(examples[1].text)
    assert texts.ids[1] == whole[:3]
    assert TextBatches(examples, ["a", "b"], tokenizer, max_length=3, cut="start").ids[1] == whole[-3:]


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
        TextBatches([Example("x", ("egg",))], ["ham", "spam"], tokenizer, max_length=9)


def test_several_labels_are_ones_and_zeros(tokenizer: Tokenizer) -> None:
    examples = [Example("The fox", ("b",)), Example("jumps", ()), Example("over", ("a", "b"))]
    (batch,) = TextBatches(examples, ["a", "b"], tokenizer, max_length=9, is_multi_label=True).in_order(8)
    assert batch["labels"].tolist() == [[0, 1], [0, 0], [1, 1]]
    assert batch["labels"].is_floating_point()


def test_weights_come_in_the_shape_of_the_labels(tokenizer: Tokenizer) -> None:
    examples = make_examples(ham=3, spam=1)
    (batch,) = TextBatches(examples, ["ham", "spam"], tokenizer, max_length=9, is_weighted=True).in_order(8)
    assert batch["weights"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    (batch,) = TextBatches(
        examples, ["ham", "spam"], tokenizer, max_length=9, is_weighted=True, is_multi_label=True
    ).in_order(8)
    assert batch["weights"][0].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert batch["weights"][3].tolist() == pytest.approx([2, 2])


def test_texts_sorted_by_length_say_where_they_were(tokenizer: Tokenizer) -> None:
    examples = [Example("fox " * count, ("a",)) for count in (5, 1, 3)]
    texts = TextBatches(examples, ["a", "b"], tokenizer, max_length=99)
    batches, order = texts.by_length(2)
    assert order == [1, 2, 0]
    assert [batch["lengths"].tolist() for batch in batches] == [
        [len(texts.ids[1]), len(texts.ids[2])],
        [len(texts.ids[0])],
    ]
