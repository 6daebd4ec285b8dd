"""Losses as a sum and a count of valid targets, so that masked batches can be cut anywhere and still add up.

They know models and batches, not how a step divides or applies the gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from model.classifier import GPTClassifier
from model.gpt import GPT

IGNORE_INDEX = -100
"""Target of a position that teaches nothing: prompt, padding. The framework's own default."""

Batch = Mapping[str, Tensor]
"""Tensors whose first dimension runs over the rows of one batch."""


@dataclass(frozen=True, slots=True)
class LossSums:
    """What one forward pass adds to a step: everything is summed over its valid targets."""

    loss: Tensor
    """Summed loss in nats, a scalar that carries the gradient."""
    count: int
    """Number of valid targets."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further sums over the same targets, such as the number of correct ones."""


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of logits (N, V) over the targets (N,) that are not `IGNORE_INDEX`, in float32."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")


def next_token_loss(model: GPT, batch: Batch) -> LossSums:
    """Score every next token of `idx` (B, T) against `targets` (B, T), both int64.

    Only positions with a target are mapped to logits: on short answers that saves most of the output layer.
    """
    targets = batch["targets"]
    is_target = targets != IGNORE_INDEX
    hidden = model(batch["idx"])[is_target]  # (N, C)
    logits, targets = model.logits(hidden), targets[is_target]  # (N, V), (N,)
    correct = (logits.detach().argmax(-1) == targets).sum()
    return LossSums(cross_entropy_sum(logits, targets), len(targets), {"accuracy": float(correct)})


def label_loss(model: GPTClassifier, batch: Batch) -> LossSums:
    """Score the labels (B,) of right-padded texts `idx` (B, T) with their `lengths` (B,)."""
    logits: Tensor = model(batch["idx"], batch["lengths"])  # (B, num_labels)
    labels = batch["labels"]
    correct = (logits.detach().argmax(-1) == labels).sum()
    return LossSums(cross_entropy_sum(logits, labels), len(labels), {"accuracy": float(correct)})
