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
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from model.constraint import check_spec, compile_thread
from model.grammar import ConstraintSpec, GrammarError
from model.schema_fault import find_fault

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
            complaint = thread.submit(complain, ConstraintSpec(kind, text)).result()
            answers.write(json.dumps(complaint).encode() + b"\n")
            answers.flush()


def complain(spec: ConstraintSpec) -> str | None:
    """Say what is wrong with a constraint, and where in a schema. Call it in the `compile_thread`."""
    reason = _reason(spec)
    if reason is None or _PLACE in reason:
        return reason
    if spec.kind == "json_schema":
        return _placed(reason, json.loads(spec.text))
    if spec.kind == "calls":
        for name, schema in json.loads(spec.text)[1].items():
            if own_reason := _reason_of(schema):
                return f"function {name}: {_placed(own_reason, schema)}"
    return reason


_PLACE = " (at #"


def _placed(reason: str, schema: Any) -> str:
    place = find_fault(schema, reason, _reason_of) if isinstance(schema, Mapping) else "#"
    return f"{reason}{_PLACE}{place[1:]})"


def _reason_of(schema: Mapping[str, Any]) -> str | None:
    return _reason(ConstraintSpec("json_schema", json.dumps(schema)))


def _reason(spec: ConstraintSpec) -> str | None:
    try:
        check_spec(spec)
    except GrammarError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
