"""Ending a run early: in the loop by a flag that is read between two steps, before and after it at once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


ECHO_S = 2.0
"""Signals this soon after the first mean the same request: torchrun repeats what the terminal has sent to all."""


class StoppedError(Exception):
    """The run was asked to stop and has saved where it stands; not a failure."""


@contextmanager
def stopping_at_once(echo_s: float = ECHO_S) -> Iterator[None]:
    """While entered, SIGTERM raises `StoppedError` wherever the process is; echoes do nothing, a later one kills.

    Ctrl-C needs no such help: Python raises `KeyboardInterrupt`.
    """
    first_s: list[float] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not first_s:
            first_s.append(time.monotonic())
            raise StoppedError
        if time.monotonic() - first_s[0] >= echo_s:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class StopRequest:
    """While entered, catches the first SIGTERM or Ctrl-C and its echoes; a later one acts as if nobody had."""

    def __init__(self, echo_s: float = ECHO_S) -> None:
        self.is_set = False
        self._echo_s = echo_s
        self._first_s = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python handles signals nowhere else
            self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.is_set:
            self.is_set, self._first_s = True, time.monotonic()
        elif time.monotonic() - self._first_s >= self._echo_s:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
