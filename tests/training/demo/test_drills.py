"""Drills: rows copied, owners looked up, nouns in use without their category."""

import random
import re

from training.demo import words
from training.demo.drills import copying, owning, usage

SAID, AGAIN = r"\w+ has an? \w+\.", r"The \w+(?:: | is with | belongs to )\w+\."


def test_copying_repeats_its_row() -> None:
    rng = random.Random(1)
    for _ in range(50):
        rows = re.split(r"[. ]*(?:And a|A)gain[:,] ", copying(rng).removeprefix("Say ").removesuffix("."))
        assert len(rows) >= 2
        assert len(set(rows)) == 1


def test_every_thing_is_said_to_be_of_the_one_who_has_it() -> None:
    rng = random.Random(1)
    rounds = 0
    for _ in range(50):
        text = owning(rng)
        for said, again in re.findall(rf"((?:{SAID} )+)((?:{AGAIN} ?)+)", text):
            has = {found[2]: found[1] for found in re.finditer(SAID.replace(r"\w+", r"(\w+)"), said)}
            assert {found[1]: found[2] for found in re.finditer(AGAIN.replace(r"\w+", r"(\w+)"), again)} == has
            assert len(has) >= 2
            rounds += 1
    assert rounds > 100


def test_owners_and_their_things_are_never_held_out() -> None:
    rng = random.Random(1)
    held_out = {*words.split_words(words.NAMES, held_out=True), *words.split_words(words.THINGS, held_out=True)}
    assert held_out.isdisjoint(re.findall(r"\w+", " ".join(owning(rng) for _ in range(500))))


def test_usage_uses_every_noun_and_names_categories_of_nouns_that_are_not_held_out_alone() -> None:
    rng = random.Random(1)
    text = " ".join(usage(rng) for _ in range(3000))
    assert {noun for nouns in words.NOUNS_BY_CATEGORY.values() for noun in nouns} <= set(re.findall(r"\w+", text))
    categories = dict.fromkeys(words.NOUNS_BY_CATEGORY, 0)
    for sentence in text.split("."):
        found = re.findall(r"\w+", sentence)
        for category in categories.keys() & set(found):
            categories[category] += 1
            (noun,) = set(found) & {each for nouns in words.NOUNS_BY_CATEGORY.values() for each in nouns}
            assert noun in words.NOUNS_BY_CATEGORY[category]
            assert not words.is_held_out(noun)
    assert min(categories.values()) > 100
