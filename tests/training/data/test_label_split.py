from collections import Counter

import numpy as np
import pytest

from training.data.errors import DataError
from training.data.label_split import (
    answer_weights,
    balanced,
    class_sizes,
    class_weights,
    count_contradictions,
    count_labels,
    split_examples,
    without_duplicates,
    without_those_of,
)
from training.data.labelled import Example


def make_examples(**sizes: int) -> list[Example]:
    return [Example(f"{label} text number {i}", (label,)) for label, size in sizes.items() for i in range(size)]


def test_the_first_of_repeated_texts_is_kept() -> None:
    examples = [Example("a", ("ham",)), Example("b", ("ham",)), Example("a", ("spam",)), Example("a", ("ham",))]
    assert without_duplicates(examples) == [Example("a", ("ham",)), Example("b", ("ham",))]


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


def test_texts_that_differ_in_case_and_space_only_are_repeats() -> None:
    examples = [Example("Win a  prize", ("spam",)), Example("win A prize\n", ("spam",)), Example("winaprize", ("ham",))]
    assert without_duplicates(examples) == [examples[0], examples[2]]
    assert without_those_of(examples, [Example("WIN A PRIZE", ("ham",))]) == [examples[2]]


def test_texts_with_different_labels_in_different_places_are_counted() -> None:
    examples = [Example("a", ("ham",)), Example("A", ("spam",)), Example("b", ("ham",)), Example("b", ("ham",))]
    assert count_contradictions(examples) == 1


def test_a_part_without_a_share_stays_empty() -> None:
    split = split_examples(make_examples(ham=10, spam=10), 0.2, 0.0, seed=0)
    assert (len(split.train), len(split.valid), len(split.test)) == (16, 4, 0)
    with pytest.raises(DataError, match="class 'b' has 1 texts, too few to train and validate on"):
        split_examples(make_examples(a=9, b=1), 0.2, 0.0, seed=0)


def make_tagged(count: int) -> list[Example]:
    """Texts with labels of very different frequency, some without any."""
    rng = np.random.default_rng(0)
    shares = {"common": 0.6, "half": 0.4, "rare": 0.05}
    return [Example(f"text {i}", tuple(sorted(n for n, p in shares.items() if rng.random() < p))) for i in range(count)]


def test_texts_with_several_labels_keep_each_labels_shares() -> None:
    examples = make_tagged(400)
    split = split_examples(examples, 0.1, 0.2, seed=1)
    assert Counter(split.train + split.valid + split.test) == Counter(examples)
    assert [len(split.train), len(split.valid), len(split.test)] == pytest.approx([280, 40, 80], abs=2)
    totals = count_labels(examples)
    for part, share in ((split.train, 0.7), (split.valid, 0.1), (split.test, 0.2)):
        found = count_labels(part)
        for label, total in totals.items():
            assert found[label] == pytest.approx(share * total, abs=1.5)
    assert split_examples(examples, 0.1, 0.2, seed=1) == split
    assert split_examples(examples, 0.1, 0.2, seed=2) != split


def test_weights_give_every_class_the_same_say_and_are_one_on_average() -> None:
    examples = make_examples(ham=30, spam=10)
    ham, spam = class_weights(examples, ["ham", "spam"])
    assert 30 * ham == pytest.approx(10 * spam) == pytest.approx(20)
    assert 30 * ham + 10 * spam == pytest.approx(40)
    tagged = [Example("x", ("a", "b")), Example("y", ("a",)), Example("z", ("a",)), Example("w", ())]
    assert answer_weights(tagged, ["a", "b"]) == [pytest.approx((2, 2 / 3)), pytest.approx((2 / 3, 2))]
    assert class_weights(examples, ["eggs", "ham", "spam"]) == pytest.approx([0, ham, spam])
    assert answer_weights(tagged, ["a", "c"])[1][0] == pytest.approx(0.5)


def test_many_classes_are_told_in_few_words() -> None:
    sizes = {f"c{i}": i + 1 for i in range(30)}
    assert class_sizes(make_examples(**sizes)).startswith("c29 30, c28 29, ")
    assert class_sizes(make_examples(**sizes)).endswith("and 20 smaller classes")
