"""Training runs in processes of their own: started, watched, signalled, always ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.program import poll


class Run:
    """A run in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    def wait(self) -> None:
        """Wait for a good end."""
        assert self.process.wait(150) == 0, self.log.read_text()

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def wait_for_step(self, folder: Path, step: int) -> None:
        """Wait until so many steps are logged."""

        def has_come() -> bool:
            assert not self.is_over, self.log.read_text()
            return steps_in(folder) >= step

        poll(has_come, 100, f"no step {step}")


def steps_in(folder: Path) -> int:
    """Return how many steps the metrics in a run's folder tell of."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"train"') if metrics.exists() else 0


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[Run]:
    """Start Python; kill it, and what it started, if it still lives at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=file, env=environment)
    try:
        yield Run(process, log)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()
