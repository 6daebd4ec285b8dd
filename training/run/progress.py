"""What a person at the terminal sees: messages, and a line with loss, speed, use of the device and time left."""

import logging
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from training.machine.hardware import Meter  # imports torch, and not all that has messages to show does

SMOOTHING = 0.95
"""Weight of the past in the loss and the speed shown; single steps are too noisy to read."""


class AboveTheBar(logging.Handler):
    """Writes messages above whatever bar is being drawn, instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Let what the recipes report appear on standard error."""
    logging.basicConfig(format="%(message)s", handlers=[AboveTheBar()])
    logging.getLogger("training").setLevel(logging.INFO)


def pause() -> float:
    """Return the seconds between two looks of a progress bar: at a terminal it moves, in a log file it is brief."""
    return 0.5 if sys.stderr.isatty() else 10.0


class Progress:
    """A progress bar over the steps of one run, on standard error.

    Args:
        title: leads the line.
        steps: of the whole run.
        done: steps that an earlier part of the run has taken.
        is_shown: whether there is a line at all; of several processes only one speaks.
        meter: shows what share of the devices' peak is used, and memory; None: neither.
    """

    def __init__(
        self, title: str, steps: int, done: int = 0, *, is_shown: bool = True, meter: "Meter | None" = None
    ) -> None:
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=title,
            unit="step",
            mininterval=pause(),
            bar_format="{desc} {percentage:3.0f}% {bar:20} {n}/{total} [{elapsed}<{remaining}]{postfix}",
            disable=not is_shown,
        )
        self._meter = meter
        self._loss: float | None = None
        self._valid_loss: float | None = None
        self._num_tokens = 0.0
        self._seconds = 0.0

    def advance(self, loss: float, num_tokens: int, seconds: float) -> None:
        """Show one more step.

        Args:
            loss: mean of the step, in nats.
            num_tokens: read by all processes together.
            seconds: the step took.
        """
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        self._num_tokens = SMOOTHING * self._num_tokens + num_tokens
        self._seconds = SMOOTHING * self._seconds + seconds
        if not self._bar.disable:
            self._bar.set_postfix_str(self._describe(), refresh=False)
            self._bar.update()

    def validated(self, loss: float) -> None:
        """Show a new validation loss."""
        self._valid_loss = loss

    @property
    def tokens_per_s(self) -> float:
        """Speed of the recent steps: later ones weigh more."""
        return self._num_tokens / max(self._seconds, 1e-9)

    def _describe(self) -> str:
        parts = [f"loss {self._loss:.3f}"]
        if self._valid_loss is not None:
            parts.append(f"valid {self._valid_loss:.3f}")
        parts.append(f"{self.tokens_per_s:,.0f} tokens/s")
        if self._meter is not None:
            parts.append(f"MFU {self._meter.utilization(self.tokens_per_s):.1%}")
            parts.append(f"{self._meter.memory() / 2**30:.1f} GiB")
        return ", ".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()
