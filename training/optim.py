"""Optimizers and the learning rate: which weights move by what rule, and how far at each step.

They see parameters and step numbers; losses and data are the trainer's business.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training.config import OptimConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan et al. 2024, "Muon: an optimizer for hidden layers"."""


class Muon(Optimizer):
    """Momentum whose update is replaced by the nearest semi-orthogonal matrix (Jordan et al. 2024).

    Updates are scaled by 0.2 * sqrt(longer side), as in Liu et al. 2025, "Muon is scalable for LLM training",
    section 2.2, so that they are as large as AdamW's. Matrices of one shape go through the iteration together
    and in their own precision: on a CPU that is several times as fast as one by one in bfloat16.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every matrix that has a gradient."""
        assert closure is None, "the trainer computes the loss itself"
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    by_shape.setdefault(param.shape, []).append(param)
            for shape, params in by_shape.items():
                updates = orthogonalize(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                scale = 0.2 * math.sqrt(max(shape))
                for param, update in zip(params, updates, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"] * scale)
        return None

    def _momentum(self, param: Tensor, decay: float) -> Tensor:
        """Fold the gradient into the running mean and return Nesterov's look ahead of it."""
        assert param.grad is not None
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
        mean: Tensor = state["momentum"].lerp_(param.grad, 1 - decay)
        return torch.lerp(param.grad, mean, decay)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each matrix (N, rows, columns) towards 1 by a Newton-Schulz iteration.

    With these coefficients they end between about 0.7 and 1.2, which serves as well as 1 and needs few steps.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """Share out the trainable weights of a model.

    Matrices of the blocks go to Muon if it is asked for. Embeddings, heads, norms and biases go to AdamW, which
    decays matrices only. Each group remembers its peak rate as `initial_lr`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if is_block_matrix(name, p)] if config.name == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[Optimizer] = []
    if groups:
        optimizers.append(AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True))
    if hidden:
        optimizers.append(Muon(hidden, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def is_block_matrix(name: str, param: Tensor) -> bool:
    """Say whether a parameter is a matrix inside the transformer blocks (`h.N...`, perhaps below a `gpt.`)."""
    return param.ndim == 2 and "h" in name.split(".")


def lr_factor(step: int, steps: int, config: OptimConfig) -> float:
    """Return the share of the peak rate used at a step (0-based) of a run: a pure function, so resume is exact."""
    warmup_steps = round(config.warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.final_lr + (1 - config.final_lr) * fall


def set_lr(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group to a share of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
