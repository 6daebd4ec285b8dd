"""Trainers that are stopped, or fail, and go on: in this process, where every detail can be looked at."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.gpt import GPT
from tests.tiny import make_config, make_gpt
from training.config.run import RunConfig
from training.data.batches import share
from training.loss import Batch, LossSums, next_token_loss
from training.run.best import OnDisk
from training.run.snapshots import SnapshotError, Snapshots
from training.run.state import TrainerState, rng_tensors, seed_all, set_rng
from training.run.tracking import MetricsLog
from training.trainer import NonFiniteError, Trainer


def batches(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    rng = torch.Generator().manual_seed(step)
    idx = torch.randint(384, (4, 17), generator=rng)
    return share({"idx": idx[:, :-1], "targets": idx[:, 1:]}, rank, world_size)


class Interruption(Exception):
    """Stands for whatever ends a process between two steps."""


class Run:
    """A run with dropout, averaging and snapshots, which may end at a step."""

    def __init__(self, folder: Path, ends_at: int | None = None, **changes: object) -> None:
        settings: dict[str, object] = {
            "steps": 12,
            "eval_interval": 4,
            "save_interval": 3,
            "ema": 0.9,
            "keep_best": False,
        }
        config = RunConfig.model_validate(
            {"out": folder / "out", "device": "cpu", "batch_size": 4, "micro_batch_size": 2, **settings, **changes}
        )
        seed_all(1)
        self.model = make_gpt(make_config("llama", dropout=0.2))
        self.log = MetricsLog()
        self.losses: dict[int, Tensor] = {}
        self.ends_at = ends_at
        self.trainer = Trainer(
            self.model,
            self.loss,
            batches,
            config,
            valid=[batches(99)],
            log=self.log,
            snapshots=Snapshots(folder / "snapshots", config.keep_last),
        )

    def loss(self, model: GPT, batch: Batch) -> LossSums:
        if model.training and self.trainer.state.step == self.ends_at:
            raise Interruption
        sums = next_token_loss(model, batch)
        if model.training:
            self.losses[self.trainer.state.step] = sums.loss.detach()
        return sums

    def fit(self) -> TrainerState:
        return self.trainer.fit()


def weights(run: Run) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in run.model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_goes_on_bit_for_bit_from_its_last_snapshot(tmp_path: Path, optimizer: str) -> None:
    changes: dict[str, Any] = {"optim": {"name": optimizer, "lr": 1e-2}}
    whole = Run(tmp_path / "whole", **changes)
    whole.fit()
    with pytest.raises(Interruption):
        Run(tmp_path, ends_at=8, **changes).fit()
    resumed = Run(tmp_path, **changes)
    state = resumed.fit()
    assert sorted(resumed.losses) == [6, 7, 8, 9, 10, 11]
    for step, loss in resumed.losses.items():
        assert torch.equal(loss, whole.losses[step]), step
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, weights(whole)[name]), name
    assert (state.num_tokens, state.best_step, state.best_loss) == (
        whole.trainer.state.num_tokens,
        whole.trainer.state.best_step,
        whole.trainer.state.best_loss,
    )


@pytest.mark.parametrize("forgotten", ["rng.0.torch", "optim", "average", "model"])
def test_each_part_of_a_snapshot_is_needed(tmp_path: Path, forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be wrong without it, so that the test above can be trusted to notice."""
    whole = Run(tmp_path / "whole")
    whole.fit()
    with pytest.raises(Interruption):
        Run(tmp_path, ends_at=8).fit()
    resumed = Run(tmp_path)
    resumed.trainer.restore()
    generators = rng_tensors(0, torch.device("cpu"))
    for name, tensor in resumed.trainer.tensors().items():
        if name.startswith(forgotten):
            tensor.zero_() if forgotten != "model" else tensor.add_(1e-6)
    if forgotten.startswith("rng"):
        generators[forgotten] = torch.Generator().manual_seed(5).get_state()
        set_rng(generators, 0, torch.device("cpu"))
    monkeypatch.setattr(resumed.trainer, "restore", lambda: None)
    resumed.fit()
    assert any(not torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(resumed).items())


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.fit()
    again = Run(tmp_path)
    assert again.fit().step == 12
    assert again.losses == {}
    assert all(
        torch.equal(tensor, weights(first)[name]) for name, tensor in weights(again).items() if "drop" not in name
    )


def test_the_patience_of_a_run_survives(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eval_interval": 1, "save_interval": 1, "patience": 3, "ema": None, "steps": 60}
    settings["optim"] = {"lr": 0.1, "schedule": "constant"}
    whole = Run(tmp_path / "whole", **settings)
    end = whole.fit().step
    assert end < 60
    with pytest.raises(Interruption):
        Run(tmp_path, ends_at=end - 1, **settings).fit()
    resumed = Run(tmp_path, **settings)
    assert resumed.fit().step == end
    assert sorted(resumed.losses) == [end - 1]


def test_a_snapshot_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "snapshots").write_text("in the way")
    with pytest.raises(SnapshotError, match="no snapshot of step 3"):
        Run(tmp_path).fit()


def test_after_divergence_the_last_snapshot_is_of_good_weights(tmp_path: Path) -> None:
    run = Run(tmp_path)
    loss = run.loss
    run.trainer.loss = lambda model, batch: (
        LossSums(loss(model, batch).loss * float("nan"), torch.tensor(1))
        if run.trainer.state.step == 7
        else loss(model, batch)
    )
    with pytest.raises(NonFiniteError, match="step 7"):
        run.fit()
    last = Snapshots(tmp_path / "snapshots", 1).last()
    assert last is not None
    assert last.step == 6


def test_the_best_weights_of_a_snapshot_outlive_better_ones_that_were_lost(tmp_path: Path) -> None:
    """Killed after better weights were put aside but before a snapshot spoke of them, a run goes back to the older."""
    written: list[str] = []

    def write(place: Path, model: GPT) -> None:
        place.mkdir()
        written.append(place.name)

    best = OnDisk(tmp_path, write)
    model = make_gpt(make_config("llama"))
    best.save(4, model)
    best.forget_all_but(4)
    best.save(8, model)
    assert {path.name for path in tmp_path.iterdir()} == {"best-00000004", "best-00000008", "best"}
    assert (tmp_path / "best").resolve().name == "best-00000008"
    best.forget_all_but(4)  # the next snapshot after that, should it still speak of the older
    assert {path.name for path in tmp_path.iterdir()} == {"best-00000004", "best"}
    assert (tmp_path / "best").resolve().name == "best-00000004"
    best.save(8, model)
    best.forget_all_but(8)
    assert {path.name for path in tmp_path.iterdir()} == {"best-00000008", "best"}


def test_every_generator_goes_on_where_it_was() -> None:
    def draw() -> list[float]:
        numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]
        return [float(number) for number in numbers]

    seed_all(3)
    draw()  # leaves half of a pair of Gaussian numbers behind
    state = rng_tensors(0, torch.device("cpu"))
    expected = [draw(), draw()]
    seed_all(4)
    set_rng(state, 0, torch.device("cpu"))
    assert [draw(), draw()] == expected
