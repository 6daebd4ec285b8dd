"""The frames that phrases are put into, and what is done to a request before it is learned from."""

import random

import pytest

from training.demo.cores import CORES, GREETINGS
from training.demo.phrasings import (
    ASKING,
    LEADING,
    LOOSE_WORDS,
    NAMING,
    SHOWING,
    TELLING,
    Cores,
    direct_phrasings,
    is_close,
    loosened,
    referring_phrasings,
    words_of,
)

PLURAL = Cores(("the plural of {x}",), ("count {x}", "try {x}"), ('"{word}"',), ("it",))
PASSIVE = Cores(("the passive of {x}",), (), (), ("this",), "{sentence}")


def test_every_phrase_stands_in_every_frame_that_fits_it() -> None:
    found = direct_phrasings(PLURAL)
    assert len(set(found)) == len(ASKING) + 2 * len(TELLING)
    assert {'I need the plural of "{word}".', 'Count "{word}".'} <= set(found)
    assert 'I need count "{word}".' not in found


def test_a_request_that_refers_back_names_the_thing_once_and_first() -> None:
    found = referring_phrasings(PLURAL)
    assert len(set(found)) == (len(NAMING) + len(LEADING)) * (len(ASKING) + 2 * len(TELLING))
    assert {'Here is "{word}". Count it.', '"{word}": its plural?'} <= set(found)
    assert {text.count("{word}") for text in found} == {1}


def test_a_text_stands_before_a_request_or_after_it() -> None:
    assert set(direct_phrasings(PASSIVE)) >= {"Show me the passive of this: {sentence}"}
    found = referring_phrasings(PASSIVE)
    assert "Read this. {sentence} Show me the passive of this." in found
    assert len(found) == len(SHOWING) * len(ASKING)


@pytest.mark.parametrize("kind", CORES)
def test_every_phrasing_is_asked_with_capitals_and_without_gaps(kind: str) -> None:
    for text in (*direct_phrasings(CORES[kind]), *referring_phrasings(CORES[kind])):
        assert text[0] in '"{' or text[0].isupper(), text
        assert "{x}" not in text
        assert "{}" not in text


def test_greetings_say_the_name_once() -> None:
    assert {text.count("{name}") for text in GREETINGS} == {1}


def test_loosening_drops_or_replaces_one_small_word() -> None:
    found = {loosened('Give me the plural of "{word}".', random.Random(i), "zog") for i in range(60)}
    assert 'Give the plural of "{word}".' in found
    assert 'Zog me the plural of "{word}".' in found
    assert all("plural" in text and '"{word}"' in text for text in found)
    assert len(found) == 8
    assert loosened("Nothing here.", random.Random(1), "zog") == "Nothing here."
    assert not LOOSE_WORDS & {"plural", "not", "first", "last"}


@pytest.mark.parametrize(
    ("other", "close"),
    [("a b c", True), ("a b", True), ("a x c", True), ("x a b c", True), ("a b c d e", False), ("a c b", False)],
)
def test_phrasings_are_close_from_one_word_on(other: str, close: bool) -> None:
    assert is_close("a b c", other) is is_close(other, "a b c") is close


def test_words_of_phrasings_leave_out_what_is_put_in() -> None:
    assert words_of(['Give me the -ing of "{word}".', "{}, please"]) == {"give", "me", "the", "ing", "of", "please"}
