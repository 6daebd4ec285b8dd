import itertools
import math

import numpy as np
import pytest

from training.baselines import NGram, WordNGram, cut_words, label_baselines


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_of_all_symbols_sum_to_one(order: int) -> None:
    symbols = "abcdef"
    model = NGram(order, lambda _: 1 / len(symbols))
    model.fit(["abcabcabd", "aabbcc", "e"])
    for context in itertools.product([None, *symbols], repeat=order - 1):
        assert math.isclose(sum(model.probability(context, symbol) for symbol in symbols), 1)


def test_a_bigram_equals_hand_worked_numbers() -> None:
    model = NGram(2, lambda _: 1 / 4)
    model.fit(["aab"])
    # Lowest order: a stands after two symbols, b after one; one symbol once, one twice: the discount is 1 / (1 + 2).
    assert model.probability((), "a") == pytest.approx((2 - 1 / 3) / 3 + (1 / 3 * 2 / 3) / 4)  # 11/18
    # Bigrams are all seen once, so the discount falls back to 1/2; after a stood two symbols, once each.
    assert model.probability(("a",), "a") == pytest.approx((1 - 1 / 2) / 2 + (1 / 2 * 2 / 2) * 11 / 18)
    assert model.probability(("z",), "a") == pytest.approx(11 / 18)


def test_a_higher_order_predicts_repetition_better() -> None:
    text = ["abcd" * 20]
    bits = []
    for order in (1, 2, 3):
        model = NGram(order, lambda _: 1 / 4)
        model.fit(text)
        bits.append(model.bits(text[0]))
    assert bits[0] > 3 * bits[1]


def test_words_cut_from_a_text_join_to_it() -> None:
    text = "ROMEO:\n  O, she doth teach  the torches--to burn bright!\n\n\u65e5\u672c"
    assert "".join(cut_words(text)) == text


def test_unseen_words_cost_more_but_never_everything() -> None:
    model = WordNGram(order=3)
    model.fit(["the fox jumps over the dog.", "the dog jumps over the fox."] * 5)
    seen, unseen = (
        model.bits_per_byte(["the fox jumps over the fox."]),
        model.bits_per_byte(["zebras \u65e5\u672c, quietly!"]),
    )
    assert seen < 1 < unseen < 12


TRAIN = [f"win a prize {i}" for i in range(9)] + [f"see you at {i}" for i in range(10)]


def test_classifiers_learn_a_telling_word() -> None:
    marks = np.array([[True, False]] * 9 + [[False, True]] * 10)
    found = label_baselines(TRAIN, marks, ["a prize for you", "see you"])
    for name in ("TF-IDF + logistic regression", "naive Bayes"):
        assert found[name].tolist() == [[True, False], [False, True]]
    assert found["always the most frequent"].tolist() == [[False, True], [False, True]]


def test_classifiers_answer_each_of_several_labels() -> None:
    marks = np.array([[True, True, False]] * 9 + [[False, True, False]] * 10)
    for name, found in label_baselines(TRAIN, marks, ["a prize for you", "see you"]).items():
        assert found[:, 1:].tolist() == [[True, False]] * 2
        assert found[:, 0].tolist() == ([True, False] if "frequent" not in name else [False, False])


def test_methods_that_find_no_word_are_left_out() -> None:
    assert set(label_baselines(["!", "?"], np.eye(2, dtype=bool), ["!"])) == {"always the most frequent"}
