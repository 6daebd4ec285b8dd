"""The heart: add sequences, abort them, and advance all of them by one step.

It deals in token ids only. Policy is the scheduler's, tensors are the runner's; here they meet.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from service.engine.request import Admission, Failure, Logprob, NewToken, Pooled, Request, StepOutput
from service.engine.scheduler import Scheduler, Step, StepRow

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RowResult:
    """What running one row gave."""

    token_id: int | None = None
    """The next token; None while the prompt is unfinished, or when none is wanted."""
    logprob: Logprob | None = None
    prompt_logprobs: list[Logprob] = field(default_factory=list)
    """Scores of the prompt tokens this row was the first to score."""
    pooled: list[float] | None = None
    """What a pooled sequence gains from this row. `mean`: the sum over the hidden states of its tokens. `last`: None
    before the row is complete, then the newest token's hidden state, or what the head made of it."""
    is_finite: bool = True
    """Otherwise the model made infinities of the row, or NaN, and nothing else in here means anything."""


_NoResult = Literal["failed", "again"]
"""A row that raised, or that would have read what such a row was to write."""


class Runner(Protocol):
    """Runs the rows of one step on a device."""

    def run(self, rows: Sequence[StepRow]) -> list[RowResult]: ...


class Engine:
    """Continuous batching of one model's sequences. Not thread-safe: one thread adds, aborts and steps."""

    def __init__(self, scheduler: Scheduler, runner: Runner, clock: Callable[[], float] = time.monotonic) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.last_step = Step()
        """The step that ran last: `len(rows)` sequences and `num_tokens` tokens."""
        self._clock = clock
        self._requests: dict[str, Request] = {}

    def add(self, request: Request) -> None:
        """Queue a request; its events come out of later steps.

        Raises:
            ValueError: the prompt is empty or longer than the context, or the uid is already here.
        """
        if request.uid in self._requests:
            raise ValueError(f"uid {request.uid} is already in the engine")
        self.scheduler.add(request)
        self._requests[request.uid] = request

    def abort(self, uid: str) -> None:
        """Forget a sequence and free its pages at once; it says nothing more. An unknown uid is fine."""
        if request := self._requests.pop(uid, None):
            self.scheduler.remove(request)

    def step(self) -> list[StepOutput]:
        """Advance every scheduled sequence by one step and return what happened, in order."""
        now = self._clock()
        outputs: list[StepOutput] = [self._forget(failure) for failure in self.scheduler.expire(now)]
        step = self.last_step = self.scheduler.schedule()
        outputs += [Admission(r.uid, now - r.arrival_s, r.num_cached) for r in step.admitted]
        results = self._run(step.rows)
        for row, result in zip(step.rows, results, strict=True):
            outputs += self._advance(row, result)
        if "again" in results:
            self.scheduler.restart(step.rows[results.index("again")].request)
        return outputs

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def num_running(self) -> int:
        return len(self.scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self.scheduler.waiting)

    @property
    def cache_usage(self) -> float:
        """Share of the cache's pages that sequences own, 0 to 1; others may hold prefixes for those to come."""
        return self.scheduler.pool.usage

    @property
    def num_preemptions(self) -> int:
        return self.scheduler.num_preemptions

    def _run(self, rows: Sequence[StepRow]) -> list[RowResult | _NoResult]:
        """Run the rows together. If that raises, run each alone, so that only those at fault fail."""
        if not rows:
            return []
        try:
            return [result if result.is_finite else "failed" for result in self.runner.run(rows)]
        except Exception:
            logger.exception("a step of %d sequences failed", len(rows))
        if len(rows) == 1:
            return ["failed"]
        results: list[RowResult | _NoResult] = []
        missing: set[int] = set()  # pages that were to be filled in this step
        for row in rows:
            reads_missing = not missing.isdisjoint(row.pages)
            results += ["again"] if reads_missing else self._run([row])
            if not isinstance(results[-1], RowResult):
                missing.update(row.pages[row.start // self.scheduler.pool.page_size :])
        return results

    def _advance(self, row: StepRow, result: RowResult | _NoResult) -> list[StepOutput]:
        """Note what a row gave; an event only when the sequence has a new token or has ended."""
        request = row.request
        if not isinstance(result, RowResult):
            self.scheduler.undo(row)
            if result == "again":
                return []
            self.abort(request.uid)
            return [Failure(request.uid, "internal_error")]
        is_complete, is_first = row.is_complete, not request.output_ids
        request.num_cached += row.length
        request.prompt_logprobs += result.prompt_logprobs
        if result.pooled is not None:
            request.add_pooled(result.pooled)
        if not is_complete:
            return []
        if request.pooling is not None:
            self.abort(request.uid)
            return [Pooled(request.uid, request.pooled_values())]
        if result.token_id is not None:
            request.output_ids.append(result.token_id)
            if request.constraint is not None and not request.constraint.accept(result.token_id):
                self.abort(request.uid)
                return [Failure(request.uid, "invalid_constraint")]
        finish_reason, stop_token_id = request.finish(self.scheduler.block_size)
        if finish_reason is not None:
            self.abort(request.uid)
        wants_scores = is_first and request.params.prompt_logprobs is not None
        scores = request.prompt_logprobs if wants_scores else None
        return [NewToken(request.uid, result.token_id, result.logprob, scores, finish_reason, stop_token_id)]

    def _forget(self, failure: Failure) -> Failure:
        del self._requests[failure.uid]
        return failure
