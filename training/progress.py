"""What a person at the terminal sees: messages, and a line with loss, validation loss, speed and time left."""

import logging
import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

SMOOTHING = 0.95
"""Weight of the past in the loss shown; single steps are too noisy to read."""


def show_messages() -> None:
    """Let what the recipes report appear on standard error."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)


class Progress:
    """A progress bar over the steps of one run, on standard error."""

    def __init__(self, title: str, steps: int, done: int = 0) -> None:
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=title,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            bar_format="{desc} {percentage:3.0f}% {bar:20} {n}/{total} [{elapsed}<{remaining}]{postfix}",
        )
        self._loss: float | None = None
        self._valid_loss: float | None = None
        self._num_tokens = 0
        self._seconds = 0.0

    def advance(self, loss: float, num_tokens: int, seconds: float) -> None:
        """Show one more step."""
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        self._num_tokens += num_tokens
        self._seconds += seconds
        self._bar.set_postfix_str(self._describe(), refresh=False)
        self._bar.update()

    def validated(self, loss: float) -> None:
        """Show a new validation loss."""
        self._valid_loss = loss

    def _describe(self) -> str:
        valid = f", valid {self._valid_loss:.3f}" if self._valid_loss is not None else ""
        return f"loss {self._loss:.3f}{valid}, {self._num_tokens / max(self._seconds, 1e-9):,.0f} tokens/s"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()
