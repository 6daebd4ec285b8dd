"""The only training loop: a model, a loss, a batch for each step.

It does not know what is being learned: a recipe hands it `loss(model, batch)` and `batches(step)`. A batch is a pure
function of the step, so that the position in the data is the step number and nothing more.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.loss import Batch, LossSums
from training.optim import build_optimizers, lr_factor, set_lr
from training.progress import Progress
from training.stop import StopRequest
from training.tracking import MetricsLog

M = TypeVar("M", bound=nn.Module)


class NonFiniteError(ValueError):
    """Loss or gradient became infinite or not a number; the weights are those of the step before."""


@dataclass(slots=True)
class TrainerState:
    """Where a run stands, apart from weights and optimizers."""

    step: int = 0
    """Optimizer steps done."""
    num_tokens: int = 0
    """Tokens read, padding included."""
    seconds: float = 0.0
    """Time spent in training steps."""
    best_step: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] | None = None
    """A copy of the weights with the lowest validation loss so far."""


@dataclass(slots=True)
class Totals:
    """Sums over the batches of a step or of an evaluation."""

    loss: float = 0.0
    count: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, sums: LossSums) -> None:
        self.loss += float(sums.loss.detach())
        self.count += sums.count
        for name, value in sums.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return loss and metrics for each valid target."""
        count = max(1, self.count)
        return {"loss": self.loss / count, **{name: value / count for name, value in self.metrics.items()}}


class Trainer(Generic[M]):
    """Trains a model in place.

    Args:
        model: owned by the caller; moved to the configured device and left in evaluation mode by `fit`.
        loss: sums over the valid targets of a batch, differentiable in the model's weights.
        batches: the batch of a step (0-based), always the same one for the same step.
        config: steps, batch cutting, optimizer, evaluation interval.
        valid: batches to evaluate on; empty: none.
        log: receives a `train` record for each step and a `valid` one for each evaluation.
        title: leads the progress line.
    """

    def __init__(
        self,
        model: M,
        loss: Callable[[M, Batch], LossSums],
        batches: Callable[[int], Batch],
        config: RunConfig,
        *,
        valid: Sequence[Batch] = (),
        log: MetricsLog | None = None,
        title: str = "train",
    ) -> None:
        self.device = pick_device(config.device)
        self.model = model.to(self.device)
        self.loss = loss
        self.batches = batches
        self.config = config
        self.valid = valid
        self.log = log if log is not None else MetricsLog()
        self.title = title
        self.optimizers = build_optimizers(model, config.optim)
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.state = TrainerState()

    def fit(self) -> TrainerState:
        """Train to the last step or until asked to stop (SIGTERM, Ctrl-C), then take the best weights if told to."""
        config, state = self.config, self.state
        with StopRequest() as stop, Progress(self.title, config.steps, state.step) as progress:
            while state.step < config.steps and not stop.is_set:
                self.train_step(progress)
                is_last = state.step == config.steps or stop.is_set
                if self.valid and (is_last or state.step % config.eval_interval == 0):
                    self.validate(progress)
        if config.keep_best and state.best_weights is not None:
            self.model.load_state_dict(state.best_weights)
        self.model.eval()
        return state

    def train_step(self, progress: Progress | None = None) -> None:
        """Take one optimizer step.

        Raises:
            NonFiniteError: before any weight has moved.
        """
        started = time.perf_counter()
        self.model.train()
        totals, num_tokens = Totals(), 0
        for batch in cut(self.batches(self.state.step), self.config.micro_batch_size):
            sums = self.loss(self.model, self._on_device(batch))
            torch.autograd.backward(sums.loss)
            totals.add(sums)
            num_tokens += batch["idx"].numel()

        # The sum over all micro-batches divided by all valid targets: exact however the batch was cut.
        grads = [p.grad for p in self.params if p.grad is not None]
        torch._foreach_div_(grads, max(1, totals.count))
        grad_norm = float(nn.utils.clip_grad_norm_(self.params, self.config.optim.grad_clip))
        means = totals.means()
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

        seconds = time.perf_counter() - started
        self.state.step += 1
        self.state.num_tokens += num_tokens
        self.state.seconds += seconds
        self.log.write("train", self.state.step, **means, grad_norm=grad_norm, lr=factor * self.config.optim.lr)
        if progress is not None:
            progress.advance(means["loss"], num_tokens, seconds)

    def validate(self, progress: Progress | None = None) -> dict[str, float]:
        """Evaluate on the validation batches, log it, and remember the weights if they are the best so far."""
        means = self.evaluate(self.valid)
        self.log.write("valid", self.state.step, **means)
        if means["loss"] < self.state.best_loss:
            self.state.best_loss, self.state.best_step = means["loss"], self.state.step
            if self.config.keep_best:
                self.state.best_weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if progress is not None:
            progress.validated(means["loss"])
        return means

    @torch.inference_mode()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return loss and metrics for each valid target of some batches."""
        self.model.eval()
        totals = Totals()
        for batch in batches:
            totals.add(self.loss(self.model, self._on_device(batch)))
        return totals.means()

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def cut(batch: Batch, num_rows: int | None) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `num_rows` rows; None leaves it whole."""
    total = len(batch["idx"])
    size = num_rows or total
    for start in range(0, total, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def set_up_torch(config: RunConfig) -> None:
    """Seed the generators behind weights and dropout, and bound the threads. Call before a model is built."""
    torch.manual_seed(config.seed)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)


def pick_device(name: str) -> torch.device:
    """Resolve `auto` to a GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {name} cannot be used here: {str(error).splitlines()[0]}") from None
