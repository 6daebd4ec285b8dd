import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.documents import Documents, number_documents
from training.data.tokens import TokenWindows, covering_batches
from training.loss import IGNORE_INDEX, Batch

EOS = 0
BLOCK = 6


@st.composite
def shards(draw: st.DrawFn) -> tuple[list[list[int]], bool]:
    """Documents of consecutive numbers, so that a token tells which document it is of and where in it."""
    has_end = draw(st.booleans())
    sizes = draw(st.lists(st.integers(1, 9), min_size=3, max_size=8).filter(lambda sizes: sum(sizes) > BLOCK + 2))
    texts = [[100 * (d + 1) + i for i in range(size)] for d, size in enumerate(sizes)]
    return [text + [EOS] * has_end for text in texts], has_end


def lay_out(texts: list[list[int]]) -> Documents:
    ids = np.array([id_ for text in texts for id_ in text], dtype=np.uint16)
    return Documents(ids, np.cumsum([len(text) for text in texts]).astype(np.uint64), EOS)


def check_rows(batch: Batch, has_end: bool) -> None:
    """Judge rows by what their tokens say of themselves."""
    for idx, targets, documents, positions in zip(
        *(batch[name].tolist() for name in ("idx", "targets", "documents", "positions")), strict=True
    ):
        place = 0
        for i, (token, target) in enumerate(zip(idx, targets, strict=True)):
            is_new = i > 0 and (token == EOS if has_end else token // 100 != idx[i - 1] // 100)
            place = 0 if is_new else place + (i > 0)
            if i and has_end and token == 0 == target == idx[i - 1]:
                continue  # padding behind the last document
            assert positions[i] == place
            assert documents[i] - (documents[i - 1] if i else 0) == is_new
            if target == IGNORE_INDEX:
                continue
            if token == EOS:  # opens a document and predicts its first token
                assert target % 100 == 0
            elif target != EOS:
                assert target == token + 1, "predicted across a border"


@given(shards(), st.integers(1, 4))
def test_windows_number_documents_and_predict_nothing_across_borders(
    case: tuple[list[list[int]], bool], stride: int
) -> None:
    texts, has_end = case
    documents = lay_out(texts)
    windows = TokenWindows(
        [documents.ids],
        block_size=BLOCK,
        stride=stride,
        batch_size=3,
        seed=0,
        documents=[documents],
        document_mask=True,
    )
    check_rows(windows(1), has_end)


def test_an_end_token_closes_one_document_and_opens_the_next() -> None:
    documents = lay_out([[11, 12, 13, EOS], [21, 22, EOS], [31]])
    windows = TokenWindows(
        [documents.ids], block_size=7, stride=1, batch_size=1, seed=0, documents=[documents], document_mask=True
    )
    batch = {name: tensor[0].tolist() for name, tensor in windows(0).items()}
    assert batch["idx"] == [11, 12, 13, EOS, 21, 22, EOS]
    assert batch["targets"] == [12, 13, EOS, 21, 22, EOS, 31]
    assert batch["documents"] == [0, 0, 0, 1, 1, 1, 2]
    assert batch["positions"] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("document_mask", [False, True])
def test_without_end_tokens_no_first_token_is_a_target(document_mask: bool) -> None:
    documents = lay_out([[11, 12, 13], [21, 22], [31, 32]])
    windows = TokenWindows(
        [documents.ids],
        block_size=6,
        stride=1,
        batch_size=1,
        seed=0,
        documents=[documents],
        document_mask=document_mask,
    )
    batch = windows(0)
    assert batch["targets"][0].tolist() == [12, 13, IGNORE_INDEX, 22, IGNORE_INDEX, 32]
    assert ("positions" in batch) == document_mask


def test_documents_unknown_to_the_windows_would_be_predicted_across() -> None:
    documents = lay_out([[11, 12, 13], [21, 22], [31, 32]])
    windows = TokenWindows([documents.ids], block_size=6, stride=1, batch_size=1, seed=0)
    assert windows(0)["targets"][0].tolist() == [12, 13, 21, 22, 31, 32]


@given(shards(), st.sampled_from([1, 3, 6]), st.booleans())
def test_covering_windows_see_the_same_documents(
    case: tuple[list[list[int]], bool], stride: int, stands_behind_end: bool
) -> None:
    texts, has_end = case
    documents = lay_out(texts)
    batches = covering_batches(
        documents.ids,
        block_size=BLOCK,
        batch_size=2,
        stride=stride,
        eos_id=EOS if stands_behind_end and has_end else None,
        documents=documents,
        document_mask=True,
    )
    targets = torch.cat([batch["targets"] for batch in batches])
    num_predicted = int((targets != IGNORE_INDEX).sum())
    unpredicted = 0 if stands_behind_end and has_end else 1 if has_end else len(texts)
    assert num_predicted == len(documents.ids) - unpredicted


def test_numbering_starts_anew_with_each_opening() -> None:
    documents, positions = number_documents(np.array([True, False, True, True, False]))
    assert documents.tolist() == [0, 0, 1, 2, 2]
    assert positions.tolist() == [0, 1, 0, 0, 1]
