from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.errors import DataError
from training.data.tokens import TokenWindows, covering_batches
from training.loss import IGNORE_INDEX


def ids(start: int, end: int) -> np.ndarray:
    return np.arange(start, end, dtype=np.uint16)


def test_targets_are_the_ids_one_place_later() -> None:
    windows = TokenWindows([ids(0, 50)], block_size=8, stride=3, batch_size=4, seed=0)
    batch = windows(0)
    assert batch["idx"].shape == (4, 8)
    assert torch.equal(batch["targets"], batch["idx"] + 1)


@pytest.mark.parametrize(
    ("num_tokens", "stride", "expected"), [(9, 8, 1), (16, 8, 1), (17, 8, 2), (17, 4, 3), (8 + 1, 1, 1)]
)
def test_windows_slide_as_far_as_the_text_goes(num_tokens: int, stride: int, expected: int) -> None:
    windows = TokenWindows([ids(0, num_tokens)], block_size=8, stride=stride, batch_size=1, seed=0)
    assert len(windows) == expected
    starts = sorted(int(windows(step)["idx"][0, 0]) for step in range(expected))
    assert starts == [stride * i for i in range(expected)]


def test_no_window_crosses_two_shards() -> None:
    shards = [ids(0, 20), ids(100, 105), ids(200, 230)]
    windows = TokenWindows(shards, block_size=8, stride=2, batch_size=1, seed=0)
    rows = [windows(step)["idx"][0] for step in range(len(windows))]
    assert all(int(row[-1] - row[0]) == 7 for row in rows)
    assert {int(row[0]) // 100 for row in rows} == {0, 2}


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match=r"8 tokens, too few .* --model\.block-size"):
        TokenWindows([ids(0, 8)], block_size=8, stride=1, batch_size=1, seed=0)


@pytest.mark.parametrize("num_tokens", [2, 8, 9, 10, 17, 30, 33])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_covering_windows_predict_every_id_but_the_first_once(num_tokens: int, stride: int) -> None:
    batches = covering_batches(ids(0, num_tokens), block_size=8, batch_size=2, stride=stride)
    targets = torch.cat([batch["targets"] for batch in batches])
    idx = torch.cat([batch["idx"] for batch in batches])
    is_target = targets != IGNORE_INDEX
    assert targets[is_target].tolist() == list(range(1, num_tokens))
    assert torch.equal(idx[is_target] + 1, targets[is_target])


def test_later_targets_see_at_least_the_overlap() -> None:
    targets = torch.cat([b["targets"] for b in covering_batches(ids(0, 40), block_size=8, batch_size=9, stride=4)])
    assert (targets[1:, :4] == IGNORE_INDEX).all()


def test_a_limit_looks_at_windows_spread_over_the_whole_row() -> None:
    batches = covering_batches(ids(0, 801), block_size=8, batch_size=2, stride=8, limit=32)
    assert torch.cat([batch["idx"][:, 0] for batch in batches]).tolist() == [0, 200, 400, 600]
    everything = covering_batches(ids(0, 801), block_size=8, batch_size=2, stride=8, limit=10_000)
    assert len(everything) == 50


@pytest.mark.parametrize("stride", [1, 4, 8])
@pytest.mark.parametrize("num_tokens", [1, 7, 8, 9, 30])
def test_behind_an_end_token_the_first_id_is_a_target_too(num_tokens: int, stride: int) -> None:
    batches = covering_batches(ids(1, num_tokens + 1), block_size=8, batch_size=2, stride=stride, eos_id=0)
    expected = covering_batches(ids(0, num_tokens + 1), block_size=8, batch_size=2, stride=stride)
    assert len(batches) == len(expected)
    for batch, same in zip(batches, expected, strict=True):
        assert torch.equal(batch["idx"], same["idx"])
        assert torch.equal(batch["targets"], same["targets"])


def test_covering_windows_read_only_what_a_batch_needs(tmp_path: Path) -> None:
    ids(0, 100).tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", dtype=np.uint16, mode="r")
    batches = covering_batches(mapped, block_size=8, batch_size=2, stride=8)
    assert batches[3]["idx"][:, 0].tolist() == [48, 56]
