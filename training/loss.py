"""Losses as a sum and a count of valid targets, so that masked batches can be cut anywhere and still add up.

They know models and batches, not how a step divides or applies the gradient. Nothing here waits for the device.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.classifier import GPTClassifier
from model.gpt import GPT
from model.packing import DocumentMask
from model.tokenizer import Tokenizer
from training.cross_entropy import IGNORE_INDEX as IGNORE_INDEX  # batches are made of it, too
from training.cross_entropy import in_full, linear_cross_entropy, linear_scores

M = TypeVar("M", bound=nn.Module)

Batch = Mapping[str, Tensor]
"""Tensors whose first dimension runs over the rows of one batch."""


@dataclass(frozen=True, slots=True)
class LossSums:
    """What one forward pass adds to a step, summed over its valid targets: 0-dim tensors on the model's device."""

    loss: Tensor
    """Summed loss in nats, which carries the gradient."""
    count: Tensor
    """Number of valid targets, int64."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Further sums over the same targets, such as the number of correct ones."""


Loss = Callable[[M, Batch], LossSums]


def next_token_loss(model: GPT, batch: Batch) -> LossSums:
    """Score every next token of `idx` (B, T) against `targets` (B, T), both int64.

    A batch of several documents in one row brings `documents` (B, T), the id of each token's document, and
    `positions` (B, T), its place in it.
    """
    hidden, targets = states_with_targets(model, batch)
    loss = linear_cross_entropy(hidden, model.lm_head.weight, targets)
    return LossSums(loss, count_targets(targets))


def next_token_scores(model: GPT, batch: Batch, byte_lengths: Tensor | None = None) -> LossSums:
    """Score a batch as `next_token_loss` does, without gradients, and count correct tokens and bytes.

    Args:
        byte_lengths: bytes of each token of the vocabulary (V,), int64 (see `token_byte_lengths`); None: no count.

    Returns:
        Metrics `accuracy` (correct targets) and `num_bytes` (length of all targets' text).
    """
    with torch.no_grad():
        hidden, targets = states_with_targets(model, batch)
        scores = linear_scores(hidden, model.lm_head.weight, targets)
        metrics = {"accuracy": scores.num_correct}
        if byte_lengths is not None:
            is_target = targets != IGNORE_INDEX
            lengths = byte_lengths.to(targets.device)[targets.where(is_target, 0)]
            metrics["num_bytes"] = (lengths * is_target).sum()
        return LossSums(scores.loss, count_targets(targets), metrics)


def label_loss(model: GPTClassifier, batch: Batch) -> LossSums:
    """Score the labels of right-padded texts `idx` (B, T) with their `lengths` (B,).

    `labels` (B,), int64, are the only labels of the texts; `labels` (B, num_labels), float, say of each label whether a
    text has it: the loss of a text is then the mean over the labels, as in transformers. `weights` of the same shape,
    if the batch brings them, make some answers count more; the number of targets stays what it is.
    """
    logits = in_full(model(batch["idx"], batch["lengths"]))  # (B, num_labels)
    labels, weights = batch["labels"], batch.get("weights")
    if labels.is_floating_point():
        losses = F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="none").mean(-1)
        correct = ((logits.detach() >= 0) == (labels > 0)).all(-1)
    else:
        losses = F.cross_entropy(logits, labels, reduction="none")
        losses = losses if weights is None else losses * weights
        correct = logits.detach().argmax(-1) == labels
    return LossSums(losses.sum(), torch.ones_like(correct, dtype=torch.int64).sum(), {"accuracy": correct.sum()})


def states_with_targets(model: GPT, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return hidden states (N, C) and targets (N,).

    On a CPU places without a target are left out: on short answers that saves most of the output layer. A GPU would
    have to wait to learn how many are left, and compiled code would have to be compiled again.
    """
    documents = batch.get("documents")
    mask = DocumentMask(documents) if documents is not None else None
    hidden: Tensor = model(batch["idx"], batch.get("positions"), mask)
    targets = batch["targets"]
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        is_target = targets != IGNORE_INDEX
        if not is_target.all():
            return hidden[is_target], targets[is_target]
    return hidden.flatten(0, 1), targets.flatten()


def count_targets(targets: Tensor) -> Tensor:
    """Count what is not `IGNORE_INDEX`."""
    return (targets != IGNORE_INDEX).sum()


def token_byte_lengths(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """Return the length in bytes of every token of a vocabulary (V,), int64; control tokens are no text.

    Args:
        vocab_size: of the model, which may be larger than the tokenizer's.
    """
    ids = range(min(vocab_size, tokenizer.vocab_size))
    lengths = torch.zeros(vocab_size, dtype=torch.int64)
    lengths[: len(ids)] = torch.tensor(
        [0 if i in tokenizer.special_ids else len(tokenizer.token_bytes(i)) for i in ids]
    )
    return lengths


def readable(means: Mapping[str, float]) -> dict[str, float]:
    """Return means per next token with what follows from them: perplexity and, if bytes were counted, bits per byte."""
    found = {name: value for name, value in means.items() if name != "num_bytes"}
    found["perplexity"] = math.exp(min(means["loss"], 700.0))  # a larger one is no float
    if means.get("num_bytes"):
        found["bits_per_byte"] = means["loss"] / math.log(2) / means["num_bytes"]
    return found
