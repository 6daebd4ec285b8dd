"""`python -m model.grammar_check`: checks constraints, one a line, under limits that the kernel enforces.

Whether several patterns have a text in common can take for ever to find out, and recursion can exhaust a stack. Here
that ends this process and nothing else: who reads from it finds the end of the stream instead of an answer. What passes
here is compiled by a worker in about the same time.
"""

import json
import math
import resource
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from model.constraint import check_spec, compile_thread
from model.grammar import ConstraintSpec, GrammarError

CPU_S = 2
"""Most seconds of computing for one constraint; the kernel counts whole ones."""
MEMORY_BYTES = 2 * 1024**3


def main(lines: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer each line, `[kind, text]`, with null or with what is wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end comes with the end of the input
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with compile_thread() as thread:
        for line in lines:
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = math.ceil(used.ru_utime + used.ru_stime) + CPU_S
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            kind, text = json.loads(line)
            answers.write(json.dumps(_complaint(thread, ConstraintSpec(kind, text))).encode() + b"\n")
            answers.flush()


def _complaint(thread: ThreadPoolExecutor, spec: ConstraintSpec) -> str | None:
    try:
        thread.submit(check_spec, spec).result()
    except GrammarError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
