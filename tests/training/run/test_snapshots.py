import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.run.snapshots import SnapshotError, Snapshots


def make_tensors() -> dict[str, Tensor]:
    """One of each kind that a run has: matrices, a lower precision, counters without a dimension, bytes, nothing."""
    torch.manual_seed(0)
    return {
        "model.h.0.weight": torch.randn(5, 3),
        "model.half": torch.randn(4).bfloat16(),
        "optim.h.0.weight.step": torch.tensor(12.0),
        "optim.h.0.weight.count": torch.tensor(2**40),
        "optim.strided": torch.randn(3, 4).T,
        "rng.0.torch": torch.get_rng_state(),
        "rng.0.words": torch.tensor([2**32 - 1, 0.1, float("inf")], dtype=torch.float64),
        "nothing": torch.empty(0),
    }


def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots", keep_last=2)
    tensors = make_tensors()
    snapshots.save(12, tensors, {"step": 12, "best_loss": float("inf"), "seconds": 0.1})
    found = snapshots.last()
    assert found is not None
    assert found.numbers == {"step": 12, "best_loss": float("inf"), "seconds": 0.1}
    assert found.tensors == {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    loaded = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    found.load(loaded)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name


def test_nothing_is_pickled(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep_last=1)
    snapshots.save(1, make_tensors(), {})
    assert {path.suffix for path in (tmp_path / "step-00000001").iterdir()} == {".safetensors", ".json"}


def test_the_newest_ones_are_kept(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep_last=2)
    for step in (8, 9, 10):
        snapshots.save(step, {"a": torch.tensor([step])}, {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000009", "step-00000010"]


def test_what_was_half_written_is_not_taken_for_whole_and_goes_with_the_next_one(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep_last=2)
    snapshots.save(1, {"a": torch.zeros(1)}, {})
    (tmp_path / ".step-00000002").mkdir()
    last = snapshots.last()
    assert last is not None
    assert last.step == 1
    snapshots.save(3, {"a": torch.zeros(1)}, {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000003"]


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_error_and_keeps_the_last_good_snapshot(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep_last=1)
    tensors = {"a": torch.randn(200_000)}
    snapshots.save(1, tensors, {})
    with (
        largest_file(100_000),
        pytest.raises(SnapshotError, match=r"no snapshot of step 2.*step 1 is safe in") as error,
    ):
        snapshots.save(2, tensors, {})
    assert "\n" not in str(error.value)
    assert "File too large" in str(error.value)
    loaded = {"a": torch.zeros(200_000)}
    last = snapshots.last()
    assert last is not None
    last.load(loaded)
    assert torch.equal(loaded["a"], tensors["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]  # what was half written takes no room


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match=r"no snapshot of step 1.*Not a directory.*there is no earlier one"):
        Snapshots(tmp_path / "file" / "snapshots", keep_last=1).save(1, make_tensors(), {})


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [({"b": torch.zeros(3)}, "b"), ({"a": torch.zeros(4)}, "size|shape|Size")],
)
def test_a_snapshot_of_another_model_is_refused(tmp_path: Path, tensors: dict[str, Tensor], complaint: str) -> None:
    snapshots = Snapshots(tmp_path, keep_last=1)
    snapshots.save(1, {"a": torch.zeros(3)}, {})
    last = snapshots.last()
    assert last is not None
    with pytest.raises(SnapshotError, match=complaint):
        last.load(tensors)


@pytest.mark.parametrize("name", ["state.json", "shard-00001-model-00001-of-00001.safetensors"])
def test_a_damaged_snapshot_is_named(tmp_path: Path, name: str) -> None:
    snapshots = Snapshots(tmp_path, keep_last=1)
    snapshots.save(1, {"a": torch.zeros(300)}, {"step": 1})
    file = tmp_path / "step-00000001" / name
    file.write_bytes(file.read_bytes()[:-5])
    last = snapshots.last()
    assert last is not None
    with pytest.raises(
        SnapshotError, match=r"step-00000001: cannot be read \(.*remove it to go on from the one before"
    ):
        json.dumps([last.numbers, str(last.tensors), last.load({"a": torch.zeros(300)})])
