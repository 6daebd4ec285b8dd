"""Processes forked from one that has imported the training already, which spares each of them the seconds of doing so.

That one does nothing else, so that a fork of it is as good as a process started anew: no threads, no signals handled.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["groundup", "training.classify", "training.instruct", "training.pretrain"])


class Forked:
    """A process that does some work, seen as `subprocess.Popen` shows one.

    Args:
        work: a function at the top of a file.
        log: receives what it writes to both its streams.
        environment: variables it has beside ours.
    """

    def __init__(
        self, work: Callable[..., object], *arguments: Any, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = CONTEXT.Process(target=_begin, args=(work, arguments, log, dict(environment or {})))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative after a signal, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without warning."""
        self.send_signal(signal.SIGKILL)


def run_ranks(work: Callable[..., object], *arguments: Any, size: int, logs: Path) -> list[int]:
    """Do some work in as many processes, joined as torchrun joins them; return their exit statuses.

    Args:
        logs: a folder; the first of them writes to `rank-0.log` there.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    environment = {**shared, "TORCHELASTIC_RESTART_COUNT": "0", "WORLD_SIZE": str(size)}
    ranks = [
        Forked(work, *arguments, log=logs / f"rank-{rank}.log", environment={**environment, "RANK": str(rank)})
        for rank in range(size)
    ]
    try:
        return [rank.wait(150) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def _begin(work: Callable[..., object], arguments: tuple[Any, ...], log: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)  # tests run side by side
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
    work(*arguments)
