"""A worker under supervision: its process while it lives, how often it died, and when it may live again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from service.host.bus import WorkerChannel
from service.host.workers import Worker

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
GOOD_LIFE_S = 3600.0
"""A worker that lived this long has its earlier deaths forgiven."""


@dataclass
class Ward:
    """The supervisor's notes on one worker."""

    worker: Worker[Any]
    channel: WorkerChannel
    clock: Callable[[], float] = time.monotonic
    process: BaseProcess | None = None
    """None between a death and the restart."""
    num_deaths: int = 0
    has_worked: bool = False
    """Whether any of its lives came past loading."""
    _born_s: float = 0.0
    _restart_at_s: float = 0.0

    @property
    def name(self) -> str:
        return self.worker.name

    @property
    def is_up(self) -> bool:
        """Whether the weights are loaded and the loop runs."""
        return self.process is not None and self.channel.heartbeat_age_s is not None

    @property
    def is_due(self) -> bool:
        """Whether a dead worker has waited long enough."""
        return self.process is None and self.clock() >= self._restart_at_s

    def born(self, process: BaseProcess) -> None:
        """Note a start."""
        self.process = process
        self._born_s = self.clock()

    def died(self) -> None:
        """Note a death; each one in a row doubles the wait before the next start."""
        if self.clock() - self._born_s >= GOOD_LIFE_S:
            self.num_deaths = 0
        self.num_deaths += 1
        self.has_worked = self.has_worked or self.is_up
        self.process = None
        self._restart_at_s = self.clock() + min(FIRST_DELAY_S * 2 ** (self.num_deaths - 1), LONGEST_DELAY_S)
