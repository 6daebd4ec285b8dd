"""nanoGPT's CPU run on tiny Shakespeare and ours, with as many steps of as many characters, on the same held-out text.

4 layers, 4 heads, width 128, 12 rows of 64 characters, 2,000 steps, no dropout: the figures of nanoGPT's README. Ours
is the Llama family moved by Muon; a character is a byte, and the vocabulary has no merges.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.gpt import GPT
from training.bench.peer import load_peer, quiet, run_script
from training.config.pretrain import PretrainConfig
from training.config.run import OptimConfig
from training.config.shape import ModelShape
from training.data.tokens import TokenWindows
from training.loss import next_token_loss
from training.trainer import Trainer
from training.vocabulary import train_bpe

BLOCK_SIZE, BATCH_SIZE, STEPS = 64, 12, 2000

SHAPE = ModelShape(family="llama", block_size=BLOCK_SIZE, n_layer=4, n_head=4, n_embd=128)

PEER_FLAGS = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --max_iters={steps} --lr_decay_iters={steps} --dropout=0.0"
)
"""As in nanoGPT's README; 2,000 steps there."""

TRAIN_SHARE = 0.9

LogitsOf = Callable[[Tensor], Tensor]
"""Maps ids (B, T) to logits (B, T, V)."""


@dataclass(slots=True)
class Outcome:
    """What a run cost and reached."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    loss: float = float("nan")
    """Mean loss of each held-out character, in nats."""


def split_text(text: str) -> tuple[str, str]:
    """Cut where nanoGPT cuts."""
    cut = int(len(text) * TRAIN_SHARE)
    return text[:cut], text[cut:]


def run_ours(text: str, *, steps: int, lr: float, seed: int) -> Outcome:
    """Train a model of ours and measure it."""
    train, valid = split_text(text)
    outcome = Outcome()
    with timed(outcome):
        torch.manual_seed(seed)
        tokenizer = train_bpe([], vocab_size=262)
        model = GPT(SHAPE.build(tokenizer.vocab_size))
        config = PretrainConfig(
            out=Path("nowhere"),
            data=(Path(),),
            steps=steps,
            batch_size=BATCH_SIZE,
            device="cpu",
            seed=seed,
            optim=OptimConfig(lr=lr, final_lr=0.0),
        )
        ids = np.array(tokenizer.encode(train), dtype=np.uint16)
        windows = TokenWindows([ids], block_size=BLOCK_SIZE, stride=8, batch_size=BATCH_SIZE, seed=seed)
        Trainer(model, next_token_loss, windows, config, title="ours").fit()
    outcome.loss = mean_loss(tokenizer.encode(valid), lambda idx: model.logits(model(idx)))
    return outcome


def run_peer(folder: Path, text: str, *, steps: int) -> Outcome:
    """Let nanoGPT's own script train, and measure the checkpoint it leaves.

    Raises:
        ValueError: the folder is no checkout of it, or its script failed.
    """
    module, outcome = load_peer(folder), Outcome()
    with tempfile.TemporaryDirectory() as work, timed(outcome):
        checkpoint = run_script(folder, text, PEER_FLAGS.format(steps=steps).split(), Path(work))
    with quiet():
        model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}  # as its script numbers them
    valid = [numbers[character] for character in split_text(text)[1]]
    # It maps only the last place to logits unless it is given targets.
    outcome.loss = mean_loss(valid, lambda idx: model(idx, torch.zeros_like(idx))[0])
    return outcome


@torch.inference_mode()
def mean_loss(ids: list[int], logits_of: LogitsOf) -> float:
    """Return the mean loss over neighbouring windows that do not overlap: each target is seen once."""
    usable = (len(ids) - 1) // BLOCK_SIZE * BLOCK_SIZE
    idx = torch.tensor(ids[:usable]).view(-1, BLOCK_SIZE)
    targets = torch.tensor(ids[1 : usable + 1]).view(-1, BLOCK_SIZE)
    total = 0.0
    for some_idx, some_targets in zip(torch.split(idx, 256), torch.split(targets, 256), strict=True):
        logits = logits_of(some_idx).flatten(0, 1)
        total += float(torch.nn.functional.cross_entropy(logits, some_targets.flatten(), reduction="sum"))
    return total / usable


@contextmanager
def timed(outcome: Outcome) -> Iterator[None]:
    """Write down the wall time and the CPU time, of this process and of those it started, of what happens within."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    outcome.wall_s, outcome.cpu_s = time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
