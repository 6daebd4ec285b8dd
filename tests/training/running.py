"""Training runs in processes of their own: started, watched, signalled, always ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import groundup
from tests.forked import Forked
from tests.program import poll

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]


class Run:
    """A run in a process of its own."""

    def __init__(self, process: "Forked | subprocess.Popen[bytes]", log: Path) -> None:
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
    """Start `groundup ARGUMENTS`; kill it if it still lives at the end."""
    process = Forked(run_verb, arguments, log=log)
    try:
        yield Run(process, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def started_by_torchrun(arguments: list[str], log: Path) -> Iterator[Run]:
    """Start `groundup ARGUMENTS` on two processes; kill all, if they still live at the end."""
    with log.open("wb") as file:
        command = [sys.executable, *TORCHRUN, "-m", "groundup", *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield Run(process, log)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def run_verb(arguments: list[str]) -> None:
    """Do what `groundup ARGUMENTS` does, its exit status included."""
    sys.exit(groundup.main(arguments))
