"""Several real processes in torchrun's environment, beside one alone on the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.forked import run_ranks
from tests.training.rank_program import main
from training.config.run import RunConfig
from training.machine.parallel import World
from training.trainer import Trainer

pytestmark = pytest.mark.slow

SIZE = 2


def train(out: Path, size: int = SIZE, **settings: object) -> list[int]:
    """Run `rank_program` on some processes; return their exit statuses."""
    out.mkdir(exist_ok=True)
    settings = {"steps": 6, "eval_interval": 2, "save_interval": 2, "keep_best": False, **settings}
    return run_ranks(main, out, settings, size=size, logs=out)


def finished(out: Path, size: int = SIZE, **settings: object) -> dict[str, Any]:
    """Run to a good end; return the numbers of the first process."""
    assert train(out, size, **settings) == [0] * size, (out / "rank-0.log").read_text()
    result: dict[str, Any] = json.loads((out / "rank-0.json").read_text())
    return result


def tensors(out: Path, name: str) -> dict[str, Tensor]:
    return load_file(out / f"{name}.safetensors")


def losses(result: dict[str, Any], kind: str) -> list[float]:
    return [record["loss"] for record in result["records"] if record["kind"] == kind]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of one process without dropout."""
    out = tmp_path_factory.mktemp("alone")
    return out, finished(out, 1)


@pytest.mark.parametrize(
    "settings",
    [{"parallel": "ddp", "micro_batch_size": 3}, {"parallel": "fsdp", "micro_batch_size": 3, "recompute": True}],
    ids=["ddp", "fsdp"],
)
def test_many_processes_take_the_steps_of_one(
    tmp_path: Path, alone: tuple[Path, dict[str, Any]], settings: dict[str, object]
) -> None:
    """Rows with few targets and rows with many, cut unevenly: only sums over all, divided once, come out the same."""
    reference, result = alone
    found = finished(tmp_path, **settings)
    ours, theirs = tensors(tmp_path, "grads-0"), tensors(reference, "grads-0")
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-5, atol=1e-7, msg=name)
    assert losses(found, "train") == pytest.approx(losses(result, "train"), rel=1e-5)
    assert losses(found, "valid") == pytest.approx(losses(result, "valid"), rel=1e-5)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in tensors(tmp_path, "grads-1").items())


def test_low_rank_updates_of_a_rounded_base_are_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    lora = {"rank": 3, "targets": ["q_proj", "v_proj", "down_proj"], "base_dtype": "bfloat16"}
    settings: dict[str, object] = {"lora": lora, "ema": 0.9, "optim": {"lr": 0.01}}
    alone = finished(tmp_path / "alone", 1, **settings)
    for parallel in ("ddp", "fsdp"):
        found = finished(tmp_path / parallel, **settings, parallel=parallel)
        assert losses(found, "train") == pytest.approx(losses(alone, "train"), rel=1e-3)
        reference, ours = tensors(tmp_path / "alone", "grads-0"), tensors(tmp_path / parallel, "grads-0")
        assert ours.keys() == reference.keys()
        assert all("lora_" in name and grad.dtype == torch.float32 for name, grad in ours.items())
        for name, grad in reference.items():
            torch.testing.assert_close(ours[name], grad, rtol=0.05, atol=0.05 * float(grad.abs().max()), msg=name)
        ends, base = tensors(tmp_path / parallel, "final"), tensors(tmp_path / "alone", "final")
        assert all(torch.equal(tensor, base[name]) for name, tensor in ends.items() if "lora_" not in name)


def test_a_signal_to_any_process_stops_all_at_one_step_from_which_they_resume_bit_for_bit(
    tmp_path: Path,
) -> None:
    """With copied weights; those that are shared out are killed in `test_kill`."""
    settings: dict[str, object] = {"parallel": "ddp", "dropout": 0.2, "ema": 0.9}
    finished(tmp_path / "whole", **settings)
    finished(tmp_path / "stopped", **settings, stop_at=3)
    ends = [json.loads((tmp_path / "stopped" / f"rank-{rank}.json").read_text()) for rank in range(SIZE)]
    assert [(end["step"], end["stopped"]) for end in ends] == [(3, True)] * SIZE
    assert not (tmp_path / "stopped" / "final.safetensors").exists()
    finished(tmp_path / "stopped", **settings)
    whole = tensors(tmp_path / "whole", "final")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(tmp_path / "stopped", "final").items())


def test_a_run_goes_on_with_fewer_and_with_more_processes(tmp_path: Path, alone: tuple[Path, dict[str, Any]]) -> None:
    settings: dict[str, object] = {"parallel": "fsdp", "ema": 0.9}
    whole = finished(tmp_path / "whole", 1, **settings)
    finished(tmp_path / "moved", **settings, stop_at=2)
    on_one = finished(tmp_path / "moved", 1, **settings, stop_at=4)
    on_two = finished(tmp_path / "moved", **settings)
    assert losses(on_one, "train") + losses(on_two, "train") == pytest.approx(losses(whole, "train")[2:], rel=1e-5)
    reference = tensors(tmp_path / "whole", "final")
    for name, tensor in tensors(tmp_path / "moved", "final").items():
        torch.testing.assert_close(tensor, reference[name], rtol=1e-4, atol=1e-5, msg=name)


def test_divergence_on_one_process_stops_all_before_the_weights_move(tmp_path: Path) -> None:
    assert all(train(tmp_path, diverge_at=4))
    for rank in range(SIZE):
        assert json.loads((tmp_path / f"rank-{rank}.json").read_text()) == {"step": 3, "error": "NonFiniteError"}


def test_rows_that_cannot_be_dealt_out_evenly_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "current", classmethod(lambda cls: cls(0, 3)))
    config = RunConfig(out=Path("x"), batch_size=8, device="cpu")
    with pytest.raises(ValueError, match="--batch-size: 8 rows cannot be dealt out evenly to 3 processes"):
        Trainer(torch.nn.Linear(1, 1), None, None, config)  # type: ignore[arg-type]
