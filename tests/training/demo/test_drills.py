"""Drills: rows copied, owners looked up, nouns in use without their category."""

import random
import re

from training.demo import words
from training.demo.drills import copying, owning, usage


def test_copying_repeats_its_row() -> None:
    rng = random.Random(1)
    for _ in range(50):
        rows = re.split(r"[. ]*(?:And a|A)gain[:,] ", copying(rng).removeprefix("Say ").removesuffix("."))
        assert len(rows) >= 2
        assert len(set(rows)) == 1


def test_every_thing_is_with_the_one_who_has_it() -> None:
    rng = random.Random(1)
    for _ in range(50):
        text = owning(rng)
        has = {thing: name for name, thing in re.findall(r"(\w+) has an? (\w+)\.", text)}
        found = dict(re.findall(r"The (\w+) is with (\w+)\.", text))
        assert found == has
        assert len(has) >= 2


def test_owners_and_their_things_are_never_held_out() -> None:
    rng = random.Random(1)
    held_out = {*words.split_words(words.NAMES, held_out=True), *words.split_words(words.THINGS, held_out=True)}
    assert held_out.isdisjoint(re.findall(r"\w+", " ".join(owning(rng) for _ in range(500))))


def test_usage_names_no_category_and_uses_every_noun() -> None:
    rng = random.Random(1)
    seen = set(re.findall(r"\w+", " ".join(usage(rng) for _ in range(3000))))
    assert seen.isdisjoint(words.NOUNS_BY_CATEGORY)
    assert {noun for nouns in words.NOUNS_BY_CATEGORY.values() for noun in nouns} <= seen
