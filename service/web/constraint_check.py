"""Whether a constraint can be enforced, found out in a process of its own, since some never end to compile."""

import asyncio
import atexit
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from model.grammar import ConstraintSpec
from service.web.constraints import Constrained
from service.web.errors import InvalidParameter, QueueTimeout

MAX_VERDICTS = 128
"""How many constraints are remembered with what was found out about them."""

_TOO_COMPLEX = "it is too complex to be checked"
_ROOT = Path(__file__).resolve().parents[2]


class CheckProgram:
    """The process, started with the first constraint, and anew when one has cost it its life."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, spec: ConstraintSpec) -> str | None:
        """Return what is wrong with a constraint. Seconds may pass."""
        with self._lock:
            self._process = self._process or _start()
            answer = _exchange(self._process, json.dumps([spec.kind, spec.text]).encode() + b"\n")
        if not answer.endswith(b"\n"):
            self.close()
            return _TOO_COMPLEX
        verdict: str | None = json.loads(answer)
        return verdict

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                with suppress(OSError):  # what it has not read is lost, as it should be
                    self._process.communicate()
                self._process = None


PROGRAM = CheckProgram()
"""One is enough for a process, and none is started where nobody asks."""


class ConstraintCheck:
    """Finds out whether constraints can be enforced. What it knows already, it does not ask again."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._thread: ThreadPoolExecutor | None = None
        self._verdicts: OrderedDict[ConstraintSpec, str | None] = OrderedDict()

    async def check(self, wanted: Constrained | None) -> None:
        """Refuse a constraint that cannot be enforced.

        Raises:
            InvalidParameter: with the reason; for a schema, it names the keyword and its place.
            QueueTimeout: too many others are being checked.
        """
        if wanted is None:
            return
        spec = replace(wanted.spec, opens_text=False)
        if spec not in self._verdicts:
            self._verdicts[spec] = await self._ask(spec)
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(spec)
        if reason := self._verdicts[spec]:
            noun = "schema" if spec.kind in ("json_schema", "calls") else "constraint"
            raise InvalidParameter("invalid_schema", wanted.param, f"Invalid {noun} in '{wanted.param}': {reason}.")

    async def _ask(self, spec: ConstraintSpec) -> str | None:
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="constraints")
        asking = asyncio.get_running_loop().run_in_executor(self._thread, PROGRAM.ask, spec)
        try:
            return await asyncio.wait_for(asking, self._timeout_s)
        except TimeoutError:
            raise QueueTimeout from None


def _start() -> "subprocess.Popen[bytes]":
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "model.grammar_check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def _exchange(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""
