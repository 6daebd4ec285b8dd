import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.gpt import GPT
from tests.tiny import make_config, make_gpt
from training.config.run import OptimConfig, RunConfig
from training.data.batches import Batches
from training.loss import IGNORE_INDEX, Batch, LossSums, next_token_loss
from training.machine.device import pick_device
from training.run.tracking import MetricsLog
from training.trainer import NonFiniteError, Trainer, cut


def make_run(**changes: object) -> RunConfig:
    settings: dict[str, object] = {"out": Path("unused"), "steps": 4, "device": "cpu", "optim": {"lr": 1e-3}}
    return RunConfig.model_validate({**settings, **changes})


def masked_batch(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    """Six rows whose share of targets differs widely."""
    rng = torch.Generator().manual_seed(step)
    idx = torch.randint(384, (6, 16), generator=rng)
    targets = torch.randint(384, (6, 16), generator=rng)
    for row, first in enumerate((0, 15, 3, 14, 8, 12)):
        targets[row, :first] = IGNORE_INDEX
    return {"idx": idx, "targets": targets}


def weights_after(config: RunConfig, batches: Batches = masked_batch) -> dict[str, Tensor]:
    model = make_gpt(make_config("llama"))
    Trainer(model, next_token_loss, batches, config).fit()
    return model.state_dict()


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 5])
def test_a_step_is_the_same_however_its_batch_is_cut(micro_batch_size: int) -> None:
    # Plain momentum-free descent would do; AdamW's division by the gradient's size magnifies rounding, hence 1e-4.
    optim = {"name": "muon", "lr": 1e-3}
    whole = weights_after(make_run(steps=2, optim=optim))
    in_pieces = weights_after(make_run(steps=2, optim=optim, micro_batch_size=micro_batch_size))
    for name, tensor in whole.items():
        assert torch.allclose(tensor, in_pieces[name], atol=1e-4), name


def test_gradient_is_that_of_the_mean_over_all_targets() -> None:
    model, reference = make_gpt(make_config("gpt2")), make_gpt(make_config("gpt2"))
    batch = masked_batch(0)
    logits = reference.logits(reference(batch["idx"])).flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, batch["targets"].flatten()).backward()
    seen: dict[str, Tensor] = {}
    trainer = Trainer(model, next_token_loss, masked_batch, make_run(micro_batch_size=1, optim={"grad_clip": 1e9}))
    trainer.optimizers[0].register_step_pre_hook(
        lambda *_: seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    )
    trainer.train_step()
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(seen[name], parameter.grad, atol=1e-6), name


def test_cutting_keeps_every_row_once() -> None:
    batch = masked_batch(3)
    pieces = list(cut(batch, 4))
    assert [len(piece["idx"]) for piece in pieces] == [4, 2]
    for name, tensor in batch.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), tensor)


def test_a_tiny_set_is_learned_by_heart() -> None:
    model = make_gpt(make_config("llama"))
    batch = masked_batch(0)
    log = MetricsLog()
    Trainer(model, next_token_loss, lambda *_: batch, make_run(steps=80, optim={"lr": 1e-2}), log=log).fit()
    _, losses = log.series("train", "loss")
    assert losses[0] > 5
    assert losses[-1] < 0.05


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_loss_stops_before_the_weights_move(bad: float) -> None:
    def loss(model: GPT, batch: Batch) -> LossSums:
        sums = next_token_loss(model, batch)
        return LossSums(sums.loss * bad, sums.count) if torch.equal(batch["idx"], masked_batch(2)["idx"]) else sums

    model = make_gpt(make_config("llama"))
    trainer = Trainer(model, loss, masked_batch, make_run())
    trainer.train_step()
    trainer.train_step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="step 2"):
        trainer.train_step()
    assert trainer.state.step == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_non_finite_gradient_of_a_finite_loss_stops_too() -> None:
    def loss(model: GPT, batch: Batch) -> LossSums:
        sums = next_token_loss(model, batch)
        root_at_zero = (model.ln_f.weight[0] * 0).sqrt()  # value 0, slope infinite
        return LossSums(sums.loss + root_at_zero, sums.count)

    trainer = Trainer(make_gpt(make_config("llama")), loss, masked_batch, make_run())
    with pytest.raises(NonFiniteError, match="step 0"):
        trainer.train_step()


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = weights_after(make_run()), weights_after(make_run())
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_best_or_the_last_weights_are_kept(keep_best: bool) -> None:
    target = masked_batch(0)
    optim = {"lr": 3e-3, "schedule": "constant"}
    config = make_run(steps=40, eval_interval=5, optim=optim, keep_best=keep_best)

    def batches(step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The validation batch at first, then something else, so that it is forgotten again."""
        return target if step < 10 else masked_batch(step)

    trainer = Trainer(make_gpt(make_config("llama")), next_token_loss, batches, config, valid=[target])
    state = trainer.fit()
    _, losses = trainer.log.series("valid", "loss")
    assert state.best_loss == min(losses) < losses[-1]
    assert trainer.evaluate([target])["loss"] == pytest.approx(state.best_loss if keep_best else losses[-1])


def test_a_run_whose_validation_loss_has_stopped_falling_ends_early() -> None:
    config = make_run(steps=40, eval_interval=2, patience=3, optim={"lr": 3e-2, "schedule": "constant"})
    trainer = Trainer(make_gpt(make_config("llama")), next_token_loss, masked_batch, config, valid=[masked_batch(99)])
    state = trainer.fit()
    assert state.step == state.best_step + 6 < 40
    assert not state.is_stopped


def test_evaluation_weighs_every_target_alike() -> None:
    trainer = Trainer(make_gpt(make_config("llama")), next_token_loss, masked_batch, make_run())
    batch = masked_batch(1)
    assert trainer.evaluate(list(cut(batch, 1))) == pytest.approx(trainer.evaluate([batch]))


def test_each_step_and_evaluation_is_logged() -> None:
    log = MetricsLog()
    config = make_run(steps=5, eval_interval=2)
    Trainer(
        make_gpt(make_config("llama")), next_token_loss, masked_batch, config, valid=[masked_batch(9)], log=log
    ).fit()
    assert log.series("train", "loss")[0] == [1, 2, 3, 4, 5]
    assert log.series("valid", "loss")[0] == [2, 4, 5]
    assert {"loss", "grad_norm", "lr"} <= log.records[0].keys()


def test_sigterm_ends_the_run_after_the_step() -> None:
    def loss(model: GPT, batch: Batch) -> LossSums:
        if torch.equal(batch["idx"], masked_batch(2)["idx"]):
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token_loss(model, batch)

    config = make_run(steps=50)
    trainer = Trainer(make_gpt(make_config("llama")), loss, masked_batch, config, valid=[masked_batch(9)])
    before = signal.getsignal(signal.SIGTERM)
    state = trainer.fit()
    assert (state.step, state.is_stopped) == (3, True)
    assert signal.getsignal(signal.SIGTERM) is before


def test_optimizer_settings_reach_the_optimizers() -> None:
    trainer = Trainer(
        make_gpt(make_config("gpt2")), next_token_loss, masked_batch, make_run(optim=OptimConfig(name="adamw"))
    )
    assert [type(optimizer).__name__ for optimizer in trainer.optimizers] == ["AdamW"]


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="--device: warp"):
        pick_device("warp")
