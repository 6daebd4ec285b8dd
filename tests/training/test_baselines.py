import itertools
import math

import pytest

from training.baselines import NGram, WordNGram, cut_words, naive_bayes, tfidf_logistic_regression
from training.data.classification import Example


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


def test_classifiers_learn_a_telling_word() -> None:
    train = [Example(f"win a prize {i}", "spam") for i in range(9)] + [
        Example(f"see you at {i}", "ham") for i in range(9)
    ]
    test = [Example("a prize for you", "spam"), Example("see you", "ham")]
    assert naive_bayes(train, test) == 1
    assert tfidf_logistic_regression(train, test) == 1
