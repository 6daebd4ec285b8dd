"""The trade of the classify worker: texts that arrive close together are scored together.

A score depends on its own text alone; batching only saves time. It knows no tensors: those are the classifier's.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from service import metrics
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Cancel, Classified, Classify, Failed, ToWorker

logger = logging.getLogger(__name__)

Score = Callable[[Sequence[Sequence[int]]], list[list[float]]]
"""Rows of token ids to rows of logits."""


class ClassificationTrade:
    """Dynamic batching as a trade: a batch goes when it is full or when its oldest text has waited long enough."""

    def __init__(
        self,
        scores: Mapping[str, Score],
        *,
        batch_size: int,
        batch_tokens: int,
        batch_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`scores` is by served id. A batch has at most `batch_size` texts and, padded, `batch_tokens` tokens."""
        self._scores = scores
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._batch_wait_s = batch_wait_s
        self._clock = clock
        self._waiting: dict[str, deque[tuple[float, Classify]]] = {name: deque() for name in scores}
        self._gauges = {name: metrics.REQUESTS_WAITING.labels(name, metrics.ENGINE) for name in scores}

    @property
    def patience_s(self) -> float:
        due = [self._due_in_s(queue) for queue in self._waiting.values() if queue]
        return min(due, default=IDLE_TICK_S)

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Queue a text, or forget some."""
        if isinstance(message, Cancel):
            gone = set(message.uids)
            for name, queue in self._waiting.items():
                self._waiting[name] = deque(entry for entry in queue if entry[1].uid not in gone)
        elif isinstance(message, Classify):
            if message.model in self._waiting:
                self._waiting[message.model].append((self._clock(), message))
            else:
                outbox.put(message.consumer, Failed(message.uid, "internal_error"))

    def work(self, outbox: Outbox) -> None:
        """Score one batch of every model whose batch is due."""
        for name, queue in self._waiting.items():
            if queue and self._due_in_s(queue) == 0.0:
                self._score(name, self._without_late(self._next_batch(queue), outbox), outbox)
            self._gauges[name].set(len(queue))

    def _due_in_s(self, queue: deque[tuple[float, Classify]]) -> float:
        if len(queue) >= self._batch_size:
            return 0.0
        return max(0.0, queue[0][0] + self._batch_wait_s - self._clock())

    def _next_batch(self, queue: deque[tuple[float, Classify]]) -> list[Classify]:
        """Take the oldest texts, as many as fit; always one, however long."""
        batch = [queue.popleft()[1]]
        longest = len(batch[0].prompt_ids)
        while queue and len(batch) < self._batch_size:
            longest = max(longest, len(queue[0][1].prompt_ids))
            if longest * (len(batch) + 1) > self._batch_tokens:
                break
            batch.append(queue.popleft()[1])
        return batch

    def _without_late(self, batch: list[Classify], outbox: Outbox) -> list[Classify]:
        now = self._clock()
        for call in batch:
            if call.deadline_s < now:
                outbox.put(call.consumer, Failed(call.uid, "queue_timeout"))
        return [call for call in batch if call.deadline_s >= now]

    def _score(self, name: str, batch: list[Classify], outbox: Outbox) -> None:
        """Score texts together; if that raises, each alone, so that only those at fault fail."""
        if not batch:
            return
        try:
            rows = self._scores[name]([call.prompt_ids for call in batch])
        except Exception:
            logger.exception("a batch of %d texts failed", len(batch))
            if len(batch) == 1:
                outbox.put(batch[0].consumer, Failed(batch[0].uid, "internal_error"))
                return
            for call in batch:
                self._score(name, [call], outbox)
            return
        metrics.BATCH_SIZE.labels(name, metrics.ENGINE).observe(len(batch))
        metrics.CLASSIFY_ITEMS.labels(name, metrics.ENGINE).inc(len(batch))
        metrics.PROMPT_TOKENS.labels(name, metrics.ENGINE).inc(sum(len(call.prompt_ids) for call in batch))
        for call, logits in zip(batch, rows, strict=True):
            outbox.put(call.consumer, Classified(call.uid, logits))
