"""What a generation worker counts, as metrics: each engine step by step, and the sequences of each served model."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from service import metrics
from service.engine.engine import Engine
from service.engine.pages import PagePool
from service.engine.request import Admission, NewToken


class EngineTally:
    """The metrics of one engine, under the name of the model whose weights it has."""

    def __init__(self, served_id: str, pool: PagePool, cache_dtype: str) -> None:
        self._labels = (served_id, metrics.ENGINE)
        self._cache = metrics.CACHE_CONFIG.labels(*self._labels, str(pool.page_size), str(pool.num_pages), cache_dtype)
        self._num_preemptions = 0
        metrics.PREEMPTIONS.labels(*self._labels)  # shown from now on: what is rare has a zero to rise from
        self._usage = -1.0

    def show_cache(self, *, is_there: bool = True) -> None:
        """Show the cache, or that it is gone."""
        self._cache.set(int(is_there))

    def stepped(self, engine: Engine, seconds: float) -> None:
        """Count a step."""
        step = engine.last_step
        metrics.STEP_SECONDS.labels(*self._labels).observe(seconds)
        metrics.BATCH_SIZE.labels(*self._labels).observe(len(step.rows))
        metrics.ITERATION_TOKENS.labels(*self._labels).observe(step.num_tokens)

    def take_stock(self, engine: Engine) -> None:
        """Bring the gauges up to date, if anything has changed."""
        if engine.num_preemptions != self._num_preemptions:
            metrics.PREEMPTIONS.labels(*self._labels).inc(engine.num_preemptions - self._num_preemptions)
            self._num_preemptions = engine.num_preemptions
        if engine.cache_usage != self._usage:
            self._usage = engine.cache_usage
            metrics.KV_CACHE_USAGE.labels(*self._labels).set(self._usage)
            metrics.GPU_CACHE_USAGE.labels(*self._labels).set(self._usage)


@dataclass(slots=True)
class _Sequence:
    num_prompt: int
    admitted_s: float | None = None
    first_token_s: float | None = None


class SequenceTally:
    """The metrics of one served model's sequences, whichever of its versions they run on."""

    def __init__(self, served_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._labels = (served_id, metrics.ENGINE)
        self._clock = clock
        self._sequences: dict[str, _Sequence] = {}
        self._num_running = 0
        self._shown = (-1, -1)
        self._generation_tokens = metrics.GENERATION_TOKENS.labels(*self._labels)

    def queued(self, uid: str, num_prompt: int) -> None:
        """Note a sequence that waits."""
        self._sequences[uid] = _Sequence(num_prompt)

    def left(self, uid: str) -> None:
        """Forget a sequence, however it ended."""
        sequence = self._sequences.pop(uid, None)
        if sequence is not None and sequence.admitted_s is not None:
            self._num_running -= 1

    def admitted(self, admission: Admission) -> None:
        """Note that a sequence left the queue."""
        sequence = self._sequences[admission.uid]
        sequence.admitted_s = self._clock()
        self._num_running += 1
        metrics.QUEUE_SECONDS.labels(*self._labels).observe(admission.queue_s)
        metrics.PROMPT_TOKENS.labels(*self._labels).inc(sequence.num_prompt)
        metrics.PROMPT_TOKENS_CACHED.labels(*self._labels).inc(admission.cached_tokens)
        metrics.PREFIX_CACHE_QUERIES.labels(*self._labels).inc(sequence.num_prompt)
        metrics.PREFIX_CACHE_HITS.labels(*self._labels).inc(admission.cached_tokens)
        num_computed = sequence.num_prompt - admission.cached_tokens
        metrics.PREFILL_COMPUTED_TOKENS.labels(*self._labels).observe(num_computed)

    def moved_on(self, token: NewToken) -> None:
        """Note a token, or the end without one."""
        if token.token_id is not None:
            self._generation_tokens.inc()
        sequence = self._sequences[token.uid]
        now_s = self._clock()
        admitted_s = now_s if sequence.admitted_s is None else sequence.admitted_s
        if sequence.first_token_s is None:
            sequence.first_token_s = now_s
            metrics.PREFILL_SECONDS.labels(*self._labels).observe(now_s - admitted_s)
        if token.finish_reason is not None:
            metrics.DECODE_SECONDS.labels(*self._labels).observe(now_s - sequence.first_token_s)
            metrics.INFERENCE_SECONDS.labels(*self._labels).observe(now_s - admitted_s)

    def take_stock(self) -> None:
        """Bring the gauges up to date, if anything has changed."""
        num_waiting = len(self._sequences) - self._num_running
        if (self._num_running, num_waiting) == self._shown:
            return
        self._shown = (self._num_running, num_waiting)
        metrics.REQUESTS_RUNNING.labels(*self._labels).set(self._num_running)
        metrics.REQUESTS_WAITING.labels(*self._labels).set(num_waiting)
        metrics.WAITING_BY_REASON.labels(*self._labels, "capacity").set(num_waiting)
