"""Programs under test: started as a user would start them, watched from outside, always ended."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


class Program:
    """A running process that writes both its streams to one file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Wait until the output has a match for `pattern`."""

        def find() -> re.Match[str] | None:
            found = re.search(pattern, self.log.read_text())
            assert found or self.process.poll() is None, f"ended early:\n{self.log.read_text()}"
            return found

        return poll(find, timeout_s, f"no {pattern!r} in the output")

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout_s)

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    @property
    def workers(self) -> list[psutil.Process]:
        """Spawned children: they hold the weights."""
        return [child for child in self.children if "spawn_main" in " ".join(child.cmdline())]

    @property
    def http(self) -> psutil.Process:
        """The forked child: it answers HTTP."""
        mine = psutil.Process(self.process.pid).cmdline()
        return next(child for child in self.children if child.cmdline() == mine)


@contextmanager
def run_program(*args: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run `python ARGS`; kill it at the end if it still lives. Its children must die with it."""
    with tempfile.TemporaryDirectory(prefix="run-", ignore_cleanup_errors=True) as scratch, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *args], stdout=output, stderr=subprocess.STDOUT, env=_own_environment(scratch, env or {})
        )
        try:
            yield Program(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _own_environment(scratch: str, changes: Mapping[str, str]) -> dict[str, str]:
    """Ours, with temporary files apart and without the metrics directory that importing our code has made."""
    inherited = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return {**inherited, "TMPDIR": scratch, **changes}


def poll(question: Callable[[], T | None], timeout_s: float, complaint: str) -> T:
    """Ask until the answer is something: neither None nor False, zero or empty."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if answer := question():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{complaint} within {timeout_s:g} s")
