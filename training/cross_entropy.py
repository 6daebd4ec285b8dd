"""Cross-entropy of an output layer that never holds all its logits: they are made, used and dropped chunk by chunk.

It knows hidden states, the weight that maps them to logits, and targets; models and batches are `loss`'s.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100
"""Target of a position that teaches nothing: prompt, padding. The framework's own default."""

CHUNK = {"cpu": 2**26, "cuda": 2**28}
"""Logits alive at once, by kind of device: few enough for its memory, enough that adding up
the chunks costs little: a CPU loses a sixth in bfloat16 at 2**24, and 6% at 2**25 (1336 x 768, V = 50257)."""


class Scores(NamedTuple):
    """Sums over the valid targets, 0-dim."""

    loss: Tensor
    """Cross-entropy in nats, float32 or float64."""
    num_correct: Tensor
    """Targets that were the most likely token, int64."""


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of logits (N, V) over the targets (N,) that are not `IGNORE_INDEX`, in float32 or more."""
    return F.cross_entropy(in_full(logits), targets, ignore_index=IGNORE_INDEX, reduction="sum")


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of `hidden @ weight.T`: `cross_entropy_sum` in a fraction of its memory.

    Few logits take the plain way. Many are cut along N, and each chunk's gradients are computed while its logits are
    there, so that the backward pass has no matrix left to multiply (Hsu et al. 2024, "Liger kernel", section 3.2).

    Args:
        hidden: (N, C).
        weight: of the output layer (V, C).
        targets: (N,) int64, `IGNORE_INDEX` where there is none.
    """
    rows = rows_per_chunk(hidden, weight)
    if len(hidden) <= rows:
        return cross_entropy_sum(F.linear(hidden, weight), targets)
    chunked: Callable[..., Tensor] = ChunkedCrossEntropy.apply
    return chunked(hidden, weight, targets, rows, matmul_dtype(hidden))


@torch.no_grad()
def linear_scores(hidden: Tensor, weight: Tensor, targets: Tensor) -> Scores:
    """Return loss and accuracy of `hidden @ weight.T` (see `linear_cross_entropy`), without gradients."""
    loss, num_correct = zero_loss(hidden), targets.new_zeros(())
    rows = rows_per_chunk(hidden, weight)
    for start in range(0, len(hidden), rows):
        chunk = slice(start, start + rows)
        logits = F.linear(hidden[chunk], weight)
        loss += cross_entropy_sum(logits, targets[chunk])
        num_correct += (logits.argmax(-1) == targets[chunk]).sum()
    return Scores(loss, num_correct)


def linear_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each target under `hidden @ weight.T` (N,), in float32 or more; 0 without a target.

    Where there are many logits, a chunk's are made again in the backward pass instead of being kept.

    Args:
        hidden: (N, C).
        weight: of the output layer (V, C).
        targets: (N,) int64, `IGNORE_INDEX` where there is none.
    """
    rows = rows_per_chunk(hidden, weight)
    if len(hidden) <= rows:
        return target_log_probs(hidden, weight, targets)
    again = functools.partial(checkpoint, target_log_probs, use_reentrant=False, preserve_rng_state=False)
    chunks = [slice(start, start + rows) for start in range(0, len(hidden), rows)]
    return torch.cat([again(hidden[chunk], weight, targets[chunk]) for chunk in chunks])


def target_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return what `linear_log_probs` does, all logits at once."""
    logits = in_full(F.linear(hidden, weight))
    return -F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")


class ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and, already in the forward pass, the gradients of hidden states and weight, one chunk after the other.

    Beside the framework's own `F.linear_cross_entropy`, which works alike: under autocast it sums the loss in
    bfloat16, three digits, or works in float32 throughout; and `torch.compile` cannot see into it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        loss = zero_loss(hidden)
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=loss.dtype) if needs_weight else None
        matrix = weight.to(dtype)  # (V, C)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            part = hidden[chunk].to(dtype)  # (n, C)
            logits = in_full(part @ matrix.T)
            total, logits_grad = loss_and_gradient(logits, targets[chunk])
            loss += total
            logits_grad = logits_grad.to(dtype)  # (n, V)
            if hidden_grad is not None:
                hidden_grad[chunk] = logits_grad @ matrix
            if weight_grad is not None:
                add_product(weight_grad, logits_grad.T, part)
        ctx.save_for_backward(hidden_grad, None if weight_grad is None else weight_grad.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        (scale,) = grads
        scaled = (None if grad is None else grad * scale.to(grad.dtype) for grad in (hidden_grad, weight_grad))
        return (*scaled, None, None, None)


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of logits (n, V), and its gradient with respect to them."""
    is_target = targets != IGNORE_INDEX
    places = targets.where(is_target, 0)[:, None]  # (n, 1)
    log_probs = torch.log_softmax(logits, -1)  # one pass, where logsumexp and a difference are five
    loss = -(log_probs.gather(1, places)[:, 0] * is_target).sum()
    gradient = log_probs.exp_()  # the softmax, less one at the target
    gradient.scatter_add_(1, places, gradient.new_full((), -1.0).expand_as(places))
    return loss, gradient.mul_(is_target[:, None])


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total`, whose precision may be higher than theirs."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def rows_per_chunk(hidden: Tensor, weight: Tensor) -> int:
    """Say how many rows of hidden states can have their logits at once."""
    return max(1, CHUNK.get(hidden.device.type, CHUNK["cpu"]) // len(weight))


def matmul_dtype(hidden: Tensor) -> torch.dtype:
    """Return the precision a linear layer would have here: autocast does not reach into an autograd function."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def in_full(tensor: Tensor) -> Tensor:
    """Raise half precision to float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def zero_loss(hidden: Tensor) -> Tensor:
    """Return a zero of the precision that losses are summed in."""
    return hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
