"""The word lists, their regular forms and the rule that holds words out."""

import random

import pytest

from training.demo import words


@pytest.mark.parametrize(
    ("rule", "word", "form"),
    [
        (words.plural, "cat", "cats"),
        (words.plural, "box", "boxes"),
        (words.plural, "branch", "branches"),
        (words.plural, "pony", "ponies"),
        (words.plural, "monkey", "monkeys"),
        (words.past, "jump", "jumped"),
        (words.past, "bake", "baked"),
        (words.past, "carry", "carried"),
        (words.past, "play", "played"),
        (words.ing, "bake", "baking"),
        (words.ing, "agree", "agreeing"),
        (words.ing, "carry", "carrying"),
        (words.comparative, "wise", "wiser"),
        (words.comparative, "happy", "happier"),
        (words.comparative, "gray", "grayer"),
    ],
)
def test_regular_forms_follow_the_spelling_rules(rule, word: str, form: str) -> None:
    assert rule(word) == form


def test_about_one_word_in_four_is_held_out_whatever_its_case() -> None:
    held_out = words.split_words(words.NOUNS, held_out=True)
    assert 0.2 < len(held_out) / len(words.NOUNS) < 0.3
    assert all(words.is_held_out(word.upper()) for word in held_out)
    assert set(held_out).isdisjoint(words.split_words(words.NOUNS, held_out=False))


def test_the_split_of_known_words_never_moves() -> None:
    assert [word for word in ("acorn", "actor", "apple", "apricot", "bake", "wombat") if words.is_held_out(word)] == [
        "apple",
        "apricot",
        "bake",
    ]


def test_lists_hold_hundreds_of_different_words() -> None:
    for pool in (words.NOUNS, words.VERBS, words.ADJECTIVES, words.UN_ADJECTIVES, words.NAMES):
        assert len(set(pool)) == len(pool) > 100


def test_a_noun_has_one_category() -> None:
    listed = [noun for nouns in words.NOUNS_BY_CATEGORY.values() for noun in nouns]
    assert len(listed) == len(set(listed))


def test_made_up_words_are_in_no_list_and_follow_the_seed() -> None:
    made_up = [words.pseudo_word(random.Random(7)) for _ in range(3)]
    assert len(set(made_up)) == 1
    rng = random.Random(7)
    listed = {*words.NOUNS, *words.VERBS, *map(words.plural, words.NOUNS), *map(words.past, words.VERBS)}
    assert listed.isdisjoint(words.pseudo_word(rng) for _ in range(3000))


@pytest.mark.parametrize(("noun", "phrase"), [("owl", "an owl"), ("cat", "a cat"), ("uniform", "a uniform")])
def test_articles_fit_the_sound(noun: str, phrase: str) -> None:
    assert words.with_article(noun) == phrase
