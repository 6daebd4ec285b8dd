import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.errors import DataError
from training.data.holdout import bytes_by_bin, choose_bins, is_held_out, split_alone, with_digests


def held_out(documents: list[str], fraction: float) -> list[str]:
    found = list(split_alone(documents, fraction))
    digests = np.array([digest for digest, _ in found], np.uint64)
    sizes = np.array([len(text.encode()) for _, text in found], np.uint64)
    chosen = is_held_out(digests, choose_bins(bytes_by_bin(digests, sizes), fraction))
    return [text for (_, text), is_chosen in zip(found, chosen, strict=True) if is_chosen]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_last_characters_of_a_single_text_are_held_out(fraction: float) -> None:
    text = "".join(random.Random(0).choices("abc \n\u00e4", k=20479))
    cut = int((1 - fraction) * len(text))
    assert held_out([text], fraction) == [text[cut:]]


def test_a_text_too_short_to_cut_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 characters is too short .* another --valid-fraction"):
        list(split_alone(["x"], 0.5))


@given(st.lists(st.text(min_size=1), min_size=2, max_size=40, unique=True), st.sampled_from([0.01, 0.1, 0.5, 0.9]))
def test_some_documents_are_held_out_but_never_all(documents: list[str], fraction: float) -> None:
    chosen = held_out(documents, fraction)
    assert 1 <= len(chosen) < len(documents)
    size, total = (sum(len(text.encode()) for text in some) for some in (chosen, documents))
    assert len(chosen) == 1 or size <= fraction * total


def test_the_share_is_exact_to_a_document_and_the_choice_knows_no_order() -> None:
    documents = [f"document number {i} " * (1 + i % 7) for i in range(2000)]
    chosen = held_out(documents, 0.1)
    share = sum(map(len, chosen)) / sum(map(len, documents))
    assert 0.098 < share <= 0.1
    random.Random(1).shuffle(documents)
    assert set(held_out(documents, 0.1)) == set(chosen)


def test_repeated_documents_fall_on_one_side() -> None:
    documents = [f"document number {i % 50}" for i in range(200)]
    chosen = held_out(documents, 0.2)
    assert {chosen.count(text) for text in chosen} == {4}


def test_nothing_is_held_out_if_nothing_should_be() -> None:
    assert held_out(["a", "b"], 0) == []
    assert held_out(["a text"], 0) == []


def test_digests_depend_on_the_content_alone() -> None:
    assert dict(with_digests(["a", "b"])) == dict(list(with_digests(["b", "a"]))[::-1])


def test_documents_that_do_not_fit_into_memory_are_not_gathered() -> None:
    endless = (f"document {i}" for i in itertools.count())
    assert [text for _, text in itertools.islice(split_alone(endless, 0.1), 3)] == [f"document {i}" for i in range(3)]
