"""Sums over micro-batches and processes, left on the device until somebody asks for all of them at once.

They know nothing of models or steps. Reading them is the only wait for the device.
"""

import torch
from torch import Tensor

from training.loss import LossSums
from training.machine.parallel import World


class Totals:
    """Loss, number of valid targets and further metrics, each summed in double precision."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._sums: Tensor | None = None  # loss, count, metrics by name: (2 + metrics,) on the device of the loss

    def add(self, sums: LossSums, *, weight: float = 1.0) -> None:
        """Add what one forward pass gives; nothing waits for the device."""
        self.names = tuple(sums.metrics)
        values = (sums.loss.detach(), sums.count, *sums.metrics.values())
        row = weight * torch.stack([torch.as_tensor(value, device=sums.loss.device).double() for value in values])
        self._sums = row if self._sums is None else self._sums + row

    def add_up(self, world: World) -> None:
        """Make them the sums over all processes."""
        if self._sums is not None:
            world.sum(self._sums)

    @property
    def count(self) -> Tensor:
        """Number of valid targets, at least 1, still on the device: a divisor for gradients."""
        assert self._sums is not None, "nothing was added"
        return self._sums[1].clamp(min=1)

    def means(self) -> dict[str, float]:
        """Return loss and metrics for each valid target, after a wait for the device."""
        return self.read()[0]

    def read(self, *further: Tensor) -> tuple[dict[str, float], list[float]]:
        """Like `means`, with the values of further scalars (0-dim) read in the same wait."""
        if self._sums is None:
            return {"loss": 0.0}, []
        row = torch.cat([self._sums, *(value.detach().double().view(1) for value in further)]).tolist()
        loss, count, *metrics = row[: 2 + len(self.names)]
        divisor = max(1.0, count)
        means = {"loss": loss / divisor, **{n: v / divisor for n, v in zip(self.names, metrics, strict=True)}}
        return means, row[2 + len(self.names) :]
