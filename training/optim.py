"""Optimizers and the learning rate: which weights move by what rule, and how far at each step.

They see parameters and step numbers; losses and data are the trainer's business.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import AdamW, Optimizer

from model.gpt import Attention, GatedMLP
from training.config.run import OptimConfig
from training.machine.shared_model import local, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan et al. 2024, "Muon: an optimizer for hidden layers"."""


BATCH = 2**27
"""Weights whose updates are worked out together, at most: half a gigabyte in float32."""


class Muon(Optimizer):
    """Momentum whose update is replaced by the nearest semi-orthogonal matrix (Jordan et al. 2024).

    Updates are scaled by 0.2 * sqrt(longer side), as in Liu et al. 2025, "Muon is scalable for LLM training",
    section 2.2, so that they are as large as AdamW's. Matrices of one shape go through the iteration together: a GPU
    has few kernels to start. A matrix whose rows are shared out over processes is brought together first: the update
    of a part is not a part of the update. The framework's own Muon knows neither of that nor of `parts`.

    A group of parameters may have `parts`: the numbers of rows of the matrices that lie in each of its parameters on
    top of each other, such as queries, keys and values. Each gets its own update.

    Args:
        half: multiply in bfloat16, which serves as well where that is faster.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float, half: bool = False
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": None}
        super().__init__(params, defaults)
        self._dtype = torch.bfloat16 if half else None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every matrix that has a gradient."""
        assert closure is None, "the trainer computes the loss itself"
        for group in self.param_groups:
            keep = 1 - group["lr"] * group["weight_decay"]
            for params in in_batches(p for p in group["params"] if p.grad is not None):
                means = [whole(self._momentum(p, group["momentum"])) for p in params]
                for param, update in zip(params, self._updates(means, group["parts"]), strict=True):
                    local(param).mul_(keep).sub_(own_part(update, param), alpha=group["lr"])
        return None

    def _momentum(self, param: Tensor, decay: float) -> Tensor:
        """Fold the gradient into the running mean and return Nesterov's look ahead of it."""
        assert param.grad is not None
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
        mean: Tensor = state["momentum"].lerp_(param.grad, 1 - decay)
        return torch.lerp(param.grad, mean, decay)

    def _updates(self, means: list[Tensor], parts: Sequence[int] | None) -> list[Tensor]:
        """Return the step of each matrix at a rate of 1; matrices of one shape are worked on together."""
        pieces = [piece for mean in means for piece in torch.split(mean, list(parts or [len(mean)]))]
        by_shape: dict[torch.Size, list[int]] = {}
        for place, piece in enumerate(pieces):
            by_shape.setdefault(piece.shape, []).append(place)
        for shape, places in by_shape.items():
            stack = torch.stack([pieces[place] for place in places])
            found = orthogonalize(stack.to(self._dtype or stack.dtype)).to(stack.dtype)
            for place, update in zip(places, found.mul_(0.2 * math.sqrt(max(shape))), strict=True):
                pieces[place] = update
        size = len(parts or [0])
        return [torch.cat(pieces[start : start + size]) for start in range(0, len(pieces), size)]


def in_batches(params: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield parameters in order, `BATCH` weights together at most, or one parameter that is larger."""
    batch: list[Tensor] = []
    for param in params:
        if batch and sum(p.numel() for p in batch) + param.numel() > BATCH:
            yield batch
            batch = []
        batch.append(param)
    if batch:
        yield batch


def own_part(full: Tensor, like: Tensor) -> Tensor:
    """Return the part of a whole matrix that belongs where this process has `like`."""
    if not isinstance(like, DTensor):
        return full
    everywhere = DTensor.from_local(full, like.device_mesh, [Replicate()] * like.device_mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=like.placements).to_local()


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
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def build_optimizers(model: nn.Module, config: OptimConfig, *, half: bool = False) -> list[Optimizer]:
    """Share out the trainable weights of a model.

    Matrices of the blocks go to Muon if it is asked for. Embeddings, heads, norms, biases and LoRA go to AdamW, which
    decays matrices only. Each group remembers its peak rate as `initial_lr`.

    Args:
        half: let Muon multiply in bfloat16.
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
        matrices = group_by_parts(hidden, merged_matrices(model))
        settings = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        optimizers.append(Muon(matrices, **settings, half=half))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def merged_matrices(model: nn.Module) -> dict[int, tuple[int, ...]]:
    """Return, by the id of each parameter that holds several matrices on top of each other, their rows."""
    found = {}
    for module in model.modules():
        if isinstance(module, Attention):
            found[id(module.qkv.weight)] = tuple(heads * module.head_dim for heads in module.num_heads)
        elif isinstance(module, GatedMLP):
            found[id(module.gate_up.weight)] = (module.down.in_features, module.down.in_features)
    return found


def group_by_parts(params: Iterable[Tensor], parts: Mapping[int, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Return a group of parameters for each way in which they hold several matrices, or one."""
    groups: dict[tuple[int, ...] | None, list[Tensor]] = {}
    for param in params:
        groups.setdefault(parts.get(id(param)), []).append(param)
    return [{"params": chosen, "parts": rows} for rows, chosen in groups.items()]


def is_block_matrix(name: str, param: Tensor) -> bool:
    """Say whether a parameter is a matrix inside the transformer blocks (`h.N...`, perhaps below a `gpt.`).

    The two factors of a low-rank update are not: Muon would make each of them, not their product, near orthogonal.
    """
    words = name.split(".")
    return param.ndim == 2 and "h" in words and not {"lora_A", "lora_B"} & set(words)


def lr_factor(step: int, steps: int, config: OptimConfig) -> float:
    """Return the share of the peak rate used at a step (0-based) of a run: a pure function, so resume is exact."""
    warmup_steps = round(config.warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    stable_steps = steps - warmup_steps - round(config.decay * steps) if config.schedule == "wsd" else 0
    first = warmup_steps + max(0, stable_steps)  # step that begins to fall
    progress = max(0, step - first) / max(1, steps - 1 - first)
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.final_lr + (1 - config.final_lr) * fall


def set_lr(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group to a share of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
