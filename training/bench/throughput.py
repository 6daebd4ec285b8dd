"""Training steps of nanoGPT and of ours on the same model, data and precision, in turn.

Both learn GPT-2's architecture with biases, tied head and exact GELU, from the same random tokens, by AdamW as each
brings it. A step is everything from making the batch to the loss as a Python number.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config import GPTConfig
from model.gpt import GPT
from training.bench.peer import Peer
from training.config.pretrain import PretrainConfig
from training.config.run import OptimConfig
from training.data.tokens import TokenWindows
from training.loss import next_token_loss
from training.trainer import Trainer

Step = Callable[[int], float]
"""Takes the step of a number and returns its loss."""


@dataclass(frozen=True, slots=True)
class Size:
    """What both train."""

    name: str
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    batch_size: int
    steps: int
    """Timed steps of a round."""


SIZES = {
    "char": Size("char", 65, 64, 4, 4, 128, batch_size=12, steps=50),
    "124m": Size("124m", 50304, 1024, 12, 12, 768, batch_size=1, steps=2),
}
"""nanoGPT's CPU configuration of its README, and GPT-2's smallest shape with nanoGPT's padded vocabulary."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for both sides."""

    precision: str
    compile: bool
    device: torch.device
    seed: int


def measure(size: Size, module: ModuleType, terms: Terms, *, rounds: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of a step in each round, by contender; a first round warms up and does not count.

    Rounds alternate which side goes first, so that a machine that slows down or wakes up favours neither.
    """
    makers = {"groundup": our_steps, "nanoGPT": peer_steps}
    with contextlib.ExitStack() as stack:
        contenders = [
            (name, stack.enter_context(contextlib.contextmanager(make)(size, module, terms)))
            for name, make in makers.items()
        ]
        times: dict[str, list[float]] = {name: [] for name in makers}
        done = 0
        for number in range(rounds + 1):
            for name, step in contenders if number % 2 else contenders[::-1]:
                seconds = time_steps(step, range(done, done + steps), terms.device)
                if number:
                    times[name].append(seconds)
            done += steps
    return times


def time_steps(step: Step, numbers: range, device: torch.device) -> float:
    """Return the mean seconds of some steps."""
    started = time.perf_counter()
    for number in numbers:
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / len(numbers)


def our_steps(size: Size, module: ModuleType, terms: Terms) -> Iterator[Step]:
    """Yield our trainer's step."""
    torch.manual_seed(terms.seed)
    model = GPT(our_shape(size))
    config = PretrainConfig(
        out=Path("nowhere"),
        data=(Path(),),
        steps=10**9,
        batch_size=size.batch_size,
        precision=terms.precision,
        compile=terms.compile,
        device=str(terms.device),
        optim=OptimConfig(name="adamw", lr=6e-4, schedule="constant", warmup=0.0),
    )
    ids = random_tokens(size)
    windows = TokenWindows([ids], block_size=size.block_size, stride=1, batch_size=size.batch_size, seed=terms.seed)
    trainer = Trainer(model, next_token_loss, windows, config)

    def step(number: int) -> float:
        trainer.train_step()
        return trainer.log.series("train", "loss")[1][-1]

    yield step


def peer_steps(size: Size, module: ModuleType, terms: Terms) -> Iterator[Step]:
    """Yield nanoGPT's step: random places of the text, autocast, clipping, as its script has it."""
    torch.manual_seed(terms.seed)
    peer = Peer(module, peer_shape(size), device=terms.device)
    if terms.compile:
        peer.compile()
    ids = random_tokens(size)
    autocast = torch.autocast(terms.device.type, torch.bfloat16, enabled=terms.precision == "bf16")

    def step(number: int) -> float:
        idx, targets = (part.to(terms.device) for part in random_rows(ids, size))
        return peer.step(idx, targets, autocast)

    yield step


def our_shape(size: Size) -> GPTConfig:
    """Return the shape as ours has it; the GELU is the exact one, as nanoGPT's is."""
    return GPTConfig(
        vocab_size=size.vocab_size,
        block_size=size.block_size,
        n_layer=size.n_layer,
        n_head=size.n_head,
        n_embd=size.n_embd,
        activation="gelu",
    )


def peer_shape(size: Size) -> dict[str, Any]:
    """Return the shape as nanoGPT has it."""
    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
    return {**{name: getattr(size, name) for name in names}, "dropout": 0.0, "bias": True}


def random_tokens(size: Size) -> Any:
    """Return ids (N,), uint16, the same for both."""
    return np.random.default_rng(0).integers(0, size.vocab_size, size=1_000_000).astype(np.uint16)


def random_rows(ids: Any, size: Size) -> tuple[Tensor, Tensor]:
    """Cut rows and their targets, each (B, T) int64, at random places."""
    starts = torch.randint(len(ids) - size.block_size, (size.batch_size,)).tolist()
    rows = [torch.from_numpy(ids[start : start + size.block_size + 1].astype(np.int64)) for start in starts]
    return torch.stack([row[:-1] for row in rows]), torch.stack([row[1:] for row in rows])


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median seconds of a step, by contender."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}
