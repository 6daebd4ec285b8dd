"""What a generation worker counts: one model's engine, step by step, as metrics."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service import metrics
from service.engine.engine import Engine
from service.engine.request import Admission, NewToken, StepOutput
from service.engine.scheduler import Step


@dataclass(slots=True)
class _Sequence:
    num_prompt: int
    admitted_s: float = 0.0
    first_token_s: float | None = None


class Tally:
    """The metrics of one model."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is the served id."""
        self._labels = (name, metrics.ENGINE)
        self._clock = clock
        self._sequences: dict[str, _Sequence] = {}
        self._generation_tokens = metrics.GENERATION_TOKENS.labels(*self._labels)
        self._num_preemptions = 0
        self._state: tuple[float, ...] = ()

    def queued(self, uid: str, num_prompt: int) -> None:
        """Note a sequence that waits."""
        self._sequences[uid] = _Sequence(num_prompt)

    def left(self, uid: str) -> None:
        """Forget a sequence, however it ended."""
        self._sequences.pop(uid, None)

    def stepped(self, step: Step, seconds: float, outputs: Sequence[StepOutput]) -> None:
        """Count a step and what it said."""
        metrics.STEP_SECONDS.labels(*self._labels).observe(seconds)
        metrics.BATCH_SIZE.labels(*self._labels).observe(len(step.rows))
        metrics.ITERATION_TOKENS.labels(*self._labels).observe(step.num_tokens)
        num_tokens = 0
        for output in outputs:
            if isinstance(output, Admission):
                self._admitted(output)
            elif isinstance(output, NewToken):
                num_tokens += output.token_id is not None
                self._moved_on(output)
            else:
                self.left(output.uid)
        self._generation_tokens.inc(num_tokens)

    def take_stock(self, engine: Engine) -> None:
        """Bring the gauges up to date, if anything has changed."""
        state = (engine.num_running, engine.num_waiting, engine.cache_usage, engine.num_preemptions)
        if state == self._state:
            return
        self._state = state
        metrics.REQUESTS_RUNNING.labels(*self._labels).set(engine.num_running)
        metrics.REQUESTS_WAITING.labels(*self._labels).set(engine.num_waiting)
        metrics.WAITING_BY_REASON.labels(*self._labels, "capacity").set(engine.num_waiting)
        metrics.KV_CACHE_USAGE.labels(*self._labels).set(engine.cache_usage)
        metrics.GPU_CACHE_USAGE.labels(*self._labels).set(engine.cache_usage)
        metrics.PREEMPTIONS.labels(*self._labels).inc(engine.num_preemptions - self._num_preemptions)
        self._num_preemptions = engine.num_preemptions

    def _admitted(self, admission: Admission) -> None:
        sequence = self._sequences[admission.uid]
        sequence.admitted_s = self._clock()
        metrics.QUEUE_SECONDS.labels(*self._labels).observe(admission.queue_s)
        metrics.PROMPT_TOKENS.labels(*self._labels).inc(sequence.num_prompt)
        metrics.PROMPT_TOKENS_CACHED.labels(*self._labels).inc(admission.cached_tokens)
        metrics.PREFIX_CACHE_QUERIES.labels(*self._labels).inc(sequence.num_prompt)
        metrics.PREFIX_CACHE_HITS.labels(*self._labels).inc(admission.cached_tokens)
        num_computed = sequence.num_prompt - admission.cached_tokens
        metrics.PREFILL_COMPUTED_TOKENS.labels(*self._labels).observe(num_computed)

    def _moved_on(self, token: NewToken) -> None:
        sequence = self._sequences[token.uid]
        if sequence.first_token_s is None:
            sequence.first_token_s = self._clock()
            metrics.PREFILL_SECONDS.labels(*self._labels).observe(sequence.first_token_s - sequence.admitted_s)
        if token.finish_reason is not None:
            now_s = self._clock()
            metrics.DECODE_SECONDS.labels(*self._labels).observe(now_s - sequence.first_token_s)
            metrics.INFERENCE_SECONDS.labels(*self._labels).observe(now_s - sequence.admitted_s)
            self.left(token.uid)
