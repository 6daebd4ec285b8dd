import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.errors import DataError
from training.data.mixture import Mixture, MixtureOrder
from training.data.order import Indices
from training.data.tokens import TokenWindows
from training.loss import Batch

weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)


class Numbered:
    """A source whose rows say which source and which row they are."""

    def __init__(self, source: int) -> None:
        self.source = source

    def rows(self, places: Indices) -> Batch:
        return {"idx": torch.from_numpy(np.stack([np.full(len(places), self.source), places], axis=1))}


@given(weights, st.integers(1, 3000), st.integers(0, 5))
def test_no_row_of_a_source_is_skipped_or_repeated(shares: list[float], num_rows: int, seed: int) -> None:
    sources, places = MixtureOrder(shares, seed)(np.arange(num_rows))
    for source in range(len(shares)):
        assert places[sources == source].tolist() == list(range(int((sources == source).sum())))


@given(weights, st.integers(1, 20))
def test_shares_are_exact_to_a_row_at_the_end_of_each_block(shares: list[float], num_blocks: int) -> None:
    order = MixtureOrder(shares, 0)
    num_rows = num_blocks * order.block_size
    sources, _ = order(np.arange(num_rows))
    counts = np.bincount(sources, minlength=len(shares))
    assert np.abs(counts - num_rows * np.array(shares) / sum(shares)).max() <= 1 + 1e-6


@given(weights, st.integers(0, 10_000), st.integers(0, 5))
def test_a_row_depends_on_its_number_alone(shares: list[float], row: int, seed: int) -> None:
    walked = MixtureOrder(shares, seed)
    walked(np.arange(0, row, 97))
    expected = [part.tolist() for part in walked(np.array([row]))]
    assert [part.tolist() for part in MixtureOrder(shares, seed)(np.array([row]))] == expected


def test_another_seed_gives_another_order_of_the_same_shares() -> None:
    rows = np.arange(64)
    first, second = (MixtureOrder([1, 1], seed)(rows)[0] for seed in (0, 1))
    assert first.tolist() != second.tolist()
    assert first.sum() == second.sum() == 32


@pytest.mark.parametrize("world_size", [1, 2, 4, 6])
def test_ranks_share_the_rows_of_one_process(world_size: int) -> None:
    mixture = Mixture([Numbered(0), Numbered(1)], [0.95, 0.05], batch_size=12, seed=3)
    for step in (0, 7, 100):
        whole = mixture(step)["idx"]
        for rank in range(world_size):
            assert torch.equal(mixture(step, rank, world_size)["idx"], whole[rank::world_size])


def test_five_per_cent_of_the_rows_come_from_the_original_data() -> None:
    mixture = Mixture([Numbered(0), Numbered(1)], [0.95, 0.05], batch_size=16, seed=3)
    rows = torch.cat([mixture(step)["idx"] for step in range(100)])
    assert int((rows[:, 0] == 1).sum()) == 80


@pytest.mark.parametrize("weights", [[1.0, 1e-12], [1.0, math.inf]])
def test_a_share_too_small_to_be_dealt_out_is_refused(weights: list[float]) -> None:
    with pytest.raises(DataError, match=r"--weights: .* smallest share"):
        MixtureOrder(weights, 0)


def test_a_rank_without_rows_gets_an_empty_batch() -> None:
    windows = TokenWindows([np.arange(50, dtype=np.uint16)], block_size=4, stride=4, batch_size=2, seed=0)
    mixture = Mixture([windows, windows], [1.0, 1.0], batch_size=2, seed=0)
    assert mixture(0, rank=2, world_size=3)["idx"].shape == (0, 4)
