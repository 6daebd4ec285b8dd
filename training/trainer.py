"""The only training loop: a model, a loss, a batch for each step.

It does not know what is being learned: a recipe hands it `loss(model, batch)` and `batches(step)`. A batch is a pure
function of the step, so that the position in the data is the step number and nothing more. How a model is spread over
processes, how a snapshot is written and what the terminal shows are other files' knowledge.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from training.config.run import RunConfig
from training.data.batches import Batches
from training.ema import ExponentialAverage
from training.loss import Batch, Loss, LossSums
from training.machine.hardware import Meter
from training.machine.parallel import World
from training.machine.prefetch import Prefetch
from training.machine.shared_model import SharedModel, local, whole
from training.machine.totals import Totals
from training.optim import build_optimizers, lr_factor, set_lr
from training.run.best import BestWeights, InMemory, copy_weights
from training.run.progress import Progress
from training.run.snapshots import Snapshots
from training.run.state import TrainerState, make_room, reseed, rng_tensors, set_rng, training_tensors
from training.run.stop import StopRequest
from training.run.tracking import MetricsLog

M = TypeVar("M", bound=nn.Module)


class NonFiniteError(ValueError):
    """Loss or gradient became infinite or not a number; the weights are those of the step before."""


class Keeping(TypedDict, total=False):
    """What a run leaves behind while it goes on: arguments of a `Trainer` that a recipe hands through."""

    log: MetricsLog
    snapshots: Snapshots
    best: BestWeights
    on_validation: Callable[[Any], object]
    meter: Meter


class Trainer(Generic[M]):
    """Trains a model in place, on this process or on all that torchrun started.

    Args:
        model: owned by the caller; moved to the configured device. When `fit` comes to its end it holds the result, in
            evaluation mode, on the first process.
        loss: what is made small.
        batches: the rows of a step (0-based) for each process, always the same ones for the same step.
        config: steps, batch cutting, optimizer, evaluation interval.
        valid: batches to evaluate on; empty: none.
        valid_loss: what is measured there; None takes `loss`.
        readable: turns the means of what is measured there into what is logged (see `training.loss.readable`).
        log: receives a `train` record for each step and a `valid` one for each evaluation.
        title: leads the progress line.
        snapshots: where the run is saved and goes on from; None saves nothing.
        best: where the best weights are put aside; None keeps them in memory.
        on_validation: called with the model after each evaluation, for example to show samples.
        meter: says what share of the device's peak is used.
    """

    def __init__(
        self,
        model: M,
        loss: Loss[M],
        batches: Batches,
        config: RunConfig,
        *,
        valid: Sequence[Batch] = (),
        valid_loss: Loss[M] | None = None,
        readable: Callable[[dict[str, float]], dict[str, float]] = dict,
        log: MetricsLog | None = None,
        title: str = "train",
        snapshots: Snapshots | None = None,
        best: BestWeights | None = None,
        on_validation: Callable[[Any], object] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.world = World.current()
        if config.batch_size % self.world.size:
            raise ValueError(
                f"--batch-size: {config.batch_size} rows cannot be dealt out evenly to {self.world.size} processes"
            )
        is_safe = snapshots is None or best is not None or not (valid and config.keep_best)
        assert is_safe, "the best weights must outlive the process, as the snapshots do"
        self.model = model
        self.shared = SharedModel(model, config)
        self.device = self.shared.device
        self.loss = loss
        self.batches = Prefetch(batches, self.world, steps=config.steps, pin=self.device.type == "cuda")
        self.config = config
        self.valid = valid
        self.valid_loss = valid_loss or loss
        self.readable = readable
        self.log = log if log is not None else MetricsLog()
        self.title = title
        self.snapshots = snapshots
        self.best = best or InMemory()
        self.on_validation = on_validation
        self.meter = meter
        self.optimizers = build_optimizers(self.shared.model, config.optim, half=config.precision == "bf16")
        self.params = [p for p in self.shared.model.parameters() if p.requires_grad]
        self.average = ExponentialAverage(self.shared.model, config.ema) if config.ema is not None else None
        self.state = TrainerState()
        self.stop = StopRequest()

    @property
    def is_over(self) -> bool:
        """Whether there is no further step to take: all are done, or the validation loss has long stopped falling."""
        is_hopeless = self.config.patience is not None and self.state.looks_in_vain >= self.config.patience
        return self.state.step >= self.config.steps or is_hopeless

    def fit(self) -> TrainerState:
        """Go on from the last snapshot, if there is one, to the last step, and leave the result in the model.

        A run that is asked to stop (SIGTERM, Ctrl-C) ends after the step at hand with a snapshot, and `is_stopped`.

        Raises:
            NonFiniteError: training diverged.
            SnapshotError: the run could not be saved, or not be read.
        """
        self.restore()
        config, state = self.config, self.state
        shown = Progress(self.title, config.steps, state.step, is_shown=self.world.is_first, meter=self.meter)
        with self.stop, self.batches, shown as progress:
            while not self.is_over and not state.is_stopped:
                self.train_step(progress)
                if self.valid and (state.step == config.steps or state.step % config.eval_interval == 0):
                    self.validate(progress)
                if self.is_over or state.is_stopped or state.step % (config.save_interval or config.eval_interval) == 0:
                    self.save()
        state.is_stopped &= not self.is_over
        if not state.is_stopped:
            self.finish()
        return state

    def train_step(self, progress: Progress | None = None) -> None:
        """Take one optimizer step, the same however its batch is cut and dealt out.

        Raises:
            NonFiniteError: before any weight has moved.
        """
        started = time.perf_counter()
        self.shared.model.train()
        totals, num_tokens = Totals(), 0
        for batch, is_last in self.micro_batches(self.state.step):
            with self.shared.adding(is_last=is_last):
                sums = LossSums(*self.shared.train_call(as_tuple, self.loss, batch))
                torch.autograd.backward(sums.loss)
            totals.add(sums)
            num_tokens += batch["idx"].numel()
        totals.add_up(self.world)
        num_tokens, num_stops = self.world.sum_counts(num_tokens, self.stop.is_set)

        # The sum over all micro-batches and processes divided by all valid targets: exact however the batch was cut.
        torch._foreach_div_([local(p.grad) for p in self.params if p.grad is not None], totals.count)
        norm = whole(nn.utils.clip_grad_norm_(self.params, self.config.optim.grad_clip))
        means, (grad_norm,) = totals.read(norm)  # the only wait for the device
        if not math.isfinite(means["loss"] + grad_norm):
            raise NonFiniteError(
                f"step {self.state.step}: loss {means['loss']}, gradient norm {grad_norm}; "
                "the weights were not moved. Lower --optim.lr or look at the data of this step."
            )
        factor = lr_factor(self.state.step, self.config.steps, self.config.optim)
        set_lr(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.state.step)

        seconds = time.perf_counter() - started
        self.state.step += 1
        self.state.num_tokens += num_tokens
        self.state.seconds += seconds
        self.state.is_stopped = num_stops > 0
        rates = {"lr": factor * self.config.optim.lr, "tokens_per_s": num_tokens / seconds}
        self.log.write(
            "train", self.state.step, **means, grad_norm=grad_norm, **rates, num_tokens=self.state.num_tokens
        )
        if progress is not None:
            progress.advance(means["loss"], num_tokens, seconds)

    def micro_batches(self, step: int) -> Iterator[tuple[Batch, bool]]:
        """Yield the pieces of this process's batch on the device, and whether each is the last one."""
        pieces = list(cut(self.batches(step), self.config.micro_batch_size))
        for number, piece in enumerate(pieces, 1):
            yield self._on_device(piece), number == len(pieces)

    def validate(self, progress: Progress | None = None) -> dict[str, float]:
        """Evaluate on the validation batches, log it, and put the weights aside if they are the best so far."""
        state = self.state
        with self.averaged():
            means = self.evaluate(self.valid)
            self.log.write("valid", state.step, **self.readable(means))
            state.looks_in_vain += 1
            if means["loss"] < state.best_loss:
                state.best_loss, state.best_step, state.looks_in_vain = means["loss"], state.step, 0
                if self.config.keep_best:
                    self.keep()
            if self.on_validation is not None:
                with torch.no_grad():
                    self.shared(self.on_validation)
        if progress is not None:
            progress.validated(means["loss"])
        return means

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Return loss and metrics for each valid target of some batches, shared out over the processes."""
        self.shared.model.eval()
        totals = Totals()
        for first in range(0, len(batches), self.world.size):
            mine = first + self.world.rank
            batch = batches[min(mine, len(batches) - 1)]  # all take part in every call, even if it is not theirs
            sums = LossSums(*self.shared(as_tuple, self.valid_loss, self._on_device(batch)))
            totals.add(sums, weight=float(mine < len(batches)))
        totals.add_up(self.world)
        return totals.means()

    def averaged(self) -> AbstractContextManager[Any]:
        """Put the averaged weights, if any, in the place of the present ones for a while."""
        return self.average.swapped_in() if self.average is not None else nullcontext()

    def keep(self) -> None:
        """Put the present weights aside as the best so far."""
        self.shared.gather()
        self.world.alone(lambda: self.best.save(self.state.step, self.model))
        self.shared.release()

    def save(self) -> None:
        """Take a snapshot."""
        if self.snapshots is None:
            return
        self.log.sync()  # what it says about earlier steps is not repeated
        tensors = {**self.tensors(), **rng_tensors(self.world.rank, self.device)}
        self.snapshots.save(self.state.step, tensors, asdict(self.state))
        self.world.alone(lambda: self.best.forget_all_but(self.state.best_step))

    def restore(self) -> None:
        """Take up the run where its last snapshot left it, bit for bit if the number of processes is the same."""
        snapshot = self.snapshots.last() if self.snapshots is not None else None
        rank = self.world.rank
        if snapshot is None:
            if rank > 0:  # the first process goes on with the numbers it would draw alone
                reseed(self.config.seed, 0, rank)
            return
        make_room(self.shared.model, self.optimizers, snapshot)
        tensors, generators = self.tensors(), rng_tensors(rank, self.device)
        has_generators = generators.keys() <= snapshot.tensors.keys()
        snapshot.load({**tensors, **(generators if has_generators else {})})
        self.state = TrainerState(**{**snapshot.numbers, "is_stopped": False})
        if has_generators:
            set_rng(generators, rank, self.device)
        else:
            reseed(self.config.seed, self.state.step, rank)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the next step reads, apart from the data."""
        average = self.average.tensors() if self.average is not None else {}
        return training_tensors(self.shared.model, self.optimizers, average)

    def finish(self) -> None:
        """Leave the result of the run in the caller's model, on the first process."""
        if self.average is not None:
            copy_weights(self.average.tensors(), self.shared.model)
        self.shared.gather()
        if self.world.is_first:
            if self.config.keep_best and self.state.best_step:
                self.best.load(self.state.best_step, self.model)
            self.model.to(self.device).eval()

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}


def as_tuple(model: M, loss: Loss[M], batch: Batch) -> tuple[Tensor, Any, Any]:
    """Return what a loss gives, in containers that the hooks of sharded models look into."""
    sums = loss(model, batch)
    return sums.loss, sums.count, sums.metrics


def cut(batch: Batch, num_rows: int | None) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `num_rows` rows; None leaves it whole."""
    total = len(batch["idx"])
    size = num_rows or total
    for start in range(0, total, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}
