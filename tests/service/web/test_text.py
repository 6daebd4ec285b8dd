"""The text pipeline against its slow, obvious version: search the whole text at once."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import Tokenizer
from service.web.text import StopMatcher, TextOptions, TextPipeline

letters = st.text(alphabet="ab\u00e9\U0001f642", max_size=30)
stop_lists = st.lists(st.text(alphabet="ab\u00e9\U0001f642", min_size=1, max_size=4), max_size=4)


def cut_at_once(text: str, stops: Sequence[str], *, keep: bool = False) -> tuple[str, str | None]:
    """The oracle: the match that starts first, the longest of several at one place."""
    matches = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not matches:
        return text, None
    start, _, stop = min(matches)
    return text[: start + len(stop)] if keep else text[:start], stop


def cut_in_pieces(pieces: Sequence[str], stops: Sequence[str], *, keep: bool = False) -> tuple[str, str | None]:
    matcher = StopMatcher(stops, keep_stop=keep)
    text = ""
    for piece in pieces:
        text += matcher.push(piece)
        if matcher.matched is not None:
            return text, matcher.matched
    return text + matcher.flush(), matcher.matched


@given(text=letters, stops=stop_lists, cuts=st.lists(st.integers(0, 30)), keep=st.booleans())
def test_text_in_pieces_is_cut_where_the_whole_text_is(
    text: str, stops: list[str], cuts: list[int], keep: bool
) -> None:
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert cut_in_pieces(pieces, stops, keep=keep) == cut_at_once(text, stops, keep=keep)


@given(text=letters, stops=stop_lists)
def test_no_more_is_held_back_than_a_stop_string_could_still_need(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    released = ""
    for seen, character in enumerate(text, start=1):
        released += matcher.push(character)
        if matcher.matched is not None:
            return
        held = text[len(released) : seen]
        assert not held or any(stop.startswith(held) or held.startswith(stop) for stop in stops)


def test_the_first_match_wins_even_if_a_later_one_is_complete_before_it() -> None:
    assert cut_in_pieces(["xabc", "d", "e"], ["bcd", "abcde"]) == ("x", "abcde")


def test_a_longer_stop_string_at_the_same_place_wins() -> None:
    assert cut_in_pieces(["x\n", "\n"], ["\n", "\n\n"]) == ("x", "\n\n")
    assert cut_in_pieces(["x\n", "y"], ["\n", "\n\n"]) == ("x", "\n")


def test_text_that_only_began_like_a_stop_string_is_released() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.push("a E"), matcher.push("N"), matcher.push("x"), matcher.flush()] == ["a ", "", "ENx", ""]


def test_what_is_held_back_at_the_end_belongs_to_the_text() -> None:
    assert cut_in_pieces(["the EN"], ["END"]) == ("the EN", None)


@given(
    text=st.text(alphabet="ab \u00e9\u65e5\U0001f642", max_size=20),
    ids=st.lists(st.integers(0, 383), max_size=20),
    stops=stop_lists,
    min_tokens=st.integers(0, 4),
)
def test_streamed_text_joins_to_the_decoded_tokens_cut_at_the_stop(
    tokenizer: Tokenizer, text: str, ids: list[int], stops: list[str], min_tokens: int
) -> None:
    """Random ids are mostly broken UTF-8, and characters of several bytes lie across tokens."""
    token_ids = tokenizer.encode(text) + ids
    pipeline = TextPipeline(tokenizer, TextOptions(stops=tuple(stops), min_tokens=min_tokens))
    streamed = ""
    for token_id in token_ids:
        streamed += pipeline.push(token_id)
        if pipeline.matched is not None:
            break
    else:
        streamed += pipeline.flush()
    whole = tokenizer.decode(token_ids, skip_special=True)
    unsearched = TextPipeline(tokenizer, TextOptions())
    num_unsearched = len("".join(unsearched.push(token_id) for token_id in token_ids[:min_tokens]))
    rest, stop = cut_at_once(whole[num_unsearched:], stops)
    assert streamed == whole[:num_unsearched] + rest
    assert pipeline.matched == stop


def test_a_character_across_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    token_ids = [token_id for byte in "\U0001f642".encode() for token_id in tokenizer_bytes(tokenizer, byte)]
    pipeline = TextPipeline(tokenizer, TextOptions())
    assert [pipeline.push(token_id) for token_id in token_ids] == ["", "", "", "\U0001f642"]


def test_an_unfinished_character_at_the_end_becomes_a_replacement(tokenizer: Tokenizer) -> None:
    pipeline = TextPipeline(tokenizer, TextOptions())
    assert pipeline.push(tokenizer_bytes(tokenizer, 0xF0)[0]) == ""
    assert pipeline.flush() == "\ufffd"


@pytest.mark.parametrize("skip", [True, False])
def test_control_tokens_show_only_when_asked_for(tokenizer: Tokenizer, skip: bool) -> None:
    pipeline = TextPipeline(tokenizer, TextOptions(skip_special=skip))
    assert pipeline.push(tokenizer.special_tokens["<|user|>"]) == ("" if skip else "<|user|>")


def tokenizer_bytes(tokenizer: Tokenizer, byte: int) -> list[int]:
    """The id of the token that is this one byte."""
    return [next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))]
