"""What sequences must look like is compiled in a thread of its own, so that no step of the others waits for it."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from model.constraint import Constraint, ConstraintFactory, compile_thread
from model.grammar import ConstraintSpec, GrammarError
from service import metrics
from service.host.cpus import use_all_cpus
from service.host.messages import FailureCode, Generate

logger = logging.getLogger(__name__)

POLL_S = 0.002
"""How often to look whether one is ready, while there is nothing else to do."""


class Ready(NamedTuple):
    """A sequence that need not wait any longer: its constraint, or why there is none."""

    message: Generate
    arrival_s: float
    outcome: Constraint | FailureCode


class Compiling:
    """Sequences whose constraints are being compiled, oldest first."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._jobs: dict[str, tuple[Generate, float, Future[Constraint]]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, message: Generate, factory: ConstraintFactory, served_id: str) -> None:
        """Start with a sequence that has a constraint; `factory` is its model's."""
        assert message.constraint is not None
        if self._thread is None:
            self._thread = compile_thread()
            self._thread.submit(use_all_cpus)
        job = self._thread.submit(_compile, message.constraint, factory, served_id)
        self._jobs[message.uid] = (message, time.monotonic(), job)

    def cancel(self, uid: str) -> None:
        """Forget a sequence; one that is not here is fine."""
        if uid in self._jobs:
            _, _, job = self._jobs.pop(uid)
            job.cancel()

    def take_ready(self) -> list[Ready]:
        """Return, once, what has been compiled, was refused, or has waited past its deadline."""
        now_s = time.monotonic()
        done = [
            uid
            for uid, (message, _, job) in self._jobs.items()
            if job.done() or now_s > min(message.queue_deadline_s, message.deadline_s)
        ]
        return [self._finish(uid) for uid in done]

    def _finish(self, uid: str) -> Ready:
        message, arrival_s, job = self._jobs.pop(uid)
        if not job.done():
            job.cancel()
            return Ready(message, arrival_s, "queue_timeout")
        try:
            return Ready(message, arrival_s, job.result())
        except GrammarError as error:
            logger.warning("the constraint of sequence %s was refused: %s", uid, error)
            return Ready(message, arrival_s, "invalid_constraint")
        except Exception:
            logger.exception("the constraint of sequence %s cannot be compiled", uid)
            return Ready(message, arrival_s, "internal_error")


def _compile(spec: ConstraintSpec, factory: ConstraintFactory, served_id: str) -> Constraint:
    started_s = time.perf_counter()
    constraint = factory.make(spec)
    metrics.COMPILE_SECONDS.labels(served_id, metrics.ENGINE).observe(time.perf_counter() - started_s)
    return constraint
