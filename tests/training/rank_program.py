"""A small run for several processes.

Beside settings of a finetuning run it takes `dropout`, and `stop_at` and `diverge_at`: the step in which the last
process is told to stop, or gets an infinite loss. Each process writes the gradients of its first step and its numbers
at the end; the first one also the final weights.
"""

import json
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import save_file

from model.gpt import GPT
from tests.tiny import make_config, make_gpt
from training.config.finetune import FinetuneConfig
from training.data.batches import share
from training.finetune import prepare
from training.loss import IGNORE_INDEX, Batch, LossSums, next_token_loss
from training.machine.parallel import join
from training.machine.shared_model import whole
from training.run.snapshots import Snapshots
from training.trainer import NonFiniteError, Trainer


def masked_batch(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    """Eight rows whose share of targets differs widely."""
    rng = torch.Generator().manual_seed(step)
    idx = torch.randint(384, (8, 16), generator=rng)
    targets = torch.randint(384, (8, 16), generator=rng)
    for row, first in enumerate((0, 15, 3, 14, 8, 12, 1, 9)):
        targets[row, :first] = IGNORE_INDEX
    return share({"idx": idx, "targets": targets}, rank, world_size)


def main(out: Path, settings: dict[str, object]) -> None:
    """Train as told."""
    family, dropout, stop_at = (settings.pop(name, None) for name in ("family", "dropout", "stop_at"))
    diverge_at = settings.pop("diverge_at", None)
    own = {"out": out, "base": "made here", "device": "cpu", "batch_size": 8, "num_threads": 1}
    config = FinetuneConfig.model_validate({**own, **settings})
    torch.set_num_threads(1)
    with join("cpu") as world:

        def loss(model: GPT, batch: Batch) -> LossSums:
            sums = next_token_loss(model, batch)
            if world.rank == world.size - 1 and trainer.state.step + 1 == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if world.rank == world.size - 1 and trainer.state.step + 1 == diverge_at:
                return LossSums(sums.loss * float("inf"), sums.count)
            return sums

        model = make_gpt(make_config(str(family or "llama"), dropout=dropout or 0.0))
        prepare(model, config)
        snapshots = Snapshots(out / "snapshots", config.keep_last)
        trainer = Trainer(
            model, loss, masked_batch, config, valid=[masked_batch(99), masked_batch(98)], snapshots=snapshots
        )
        norms: list[float] = []

        def see(*_: object) -> None:
            if not norms:
                grads = {
                    n: whole(p.grad).clone() for n, p in trainer.shared.model.named_parameters() if p.grad is not None
                }
                save_file(grads, out / f"grads-{world.rank}.safetensors")
            norms.append(0.0)

        trainer.optimizers[0].register_step_pre_hook(see)
        try:
            state = trainer.fit()
        except NonFiniteError as error:
            result = {"step": trainer.state.step, "error": type(error).__name__}
            (out / f"rank-{world.rank}.json").write_text(json.dumps(result))
            raise
        if world.is_first and not state.is_stopped:
            save_file(
                {name: p.detach().contiguous().clone() for name, p in model.named_parameters()},
                out / "final.safetensors",
            )
        result = {"step": state.step, "stopped": state.is_stopped, "records": trainer.log.records}
        (out / f"rank-{world.rank}.json").write_text(json.dumps(result))
