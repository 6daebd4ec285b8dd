"""An exponential moving average of a model's weights: steadier than the last ones, at the price of one copy.

It knows weights, not when they are evaluated or written.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.machine.shared_model import local


class ExponentialAverage:
    """Follows what trains of a model, which may be shared out over processes: each averages its own part.

    Early averages forget faster, so that the initial weights do not linger: the decay of update n is at most
    (1 + n) / (10 + n), as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        model: what is followed; the average starts from its present weights.
        decay: share of the old average in the new one.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: weight.clone() for name, weight in self._weights.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by parameter name; writing into them changes the average."""
        return self._averages

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold in the weights after a step (0-based): how much of them depends on nothing else, so resume is exact."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_parts(self._averages), _parts(self._weights), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages in the place of the weights, and afterwards bring these back bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, average in zip(_parts(self._weights), _parts(self._averages), strict=True):
            kept = weight.clone()  # one at a time: no second copy of the model
            weight.copy_(average)
            average.copy_(kept)


def _parts(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors.values()]
