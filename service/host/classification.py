"""The trade of the classify worker: texts that arrive close together are scored together.

A score depends on its own text alone; batching only saves time. It knows no tensors: those are the classifier's.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service import metrics
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Cancel, Classified, Classify, Failed, LoadModel, ToWorker

logger = logging.getLogger(__name__)

Score = Callable[[Sequence[Sequence[int]]], list[list[float]]]
"""Rows of token ids to rows of logits."""


@dataclass(slots=True)
class _Place:
    """A classifier at work, and the texts that wait for it since when."""

    served_id: str
    score: Score
    queue: deque[tuple[float, Classify]] = field(default_factory=deque)


class ClassificationTrade:
    """Dynamic batching as a trade: a batch goes when it is full or when its oldest text has waited long enough."""

    def __init__(
        self,
        *,
        batch_size: int,
        batch_tokens: int,
        batch_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A batch has at most `batch_size` texts and, padded, `batch_tokens` tokens."""
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._batch_wait_s = batch_wait_s
        self._clock = clock
        self._places: dict[str, _Place] = {}

    @property
    def patience_s(self) -> float:
        due = [self._due_in_s(place.queue) for place in self._places.values() if place.queue]
        return min(due, default=IDLE_TICK_S)

    def add(self, message: LoadModel, score: Score) -> None:
        """Take texts for a classifier from now on."""
        self._places[message.model] = _Place(message.served_id, score)

    def remove(self, name: str, outbox: Outbox) -> None:
        """Forget a classifier; texts that wait for it fail. An unknown one is fine."""
        place = self._places.pop(name, None)
        if place is not None:
            for _, call in place.queue:
                outbox.put(call.consumer, Failed(call.uid, "internal_error"))
            metrics.REQUESTS_WAITING.labels(place.served_id, metrics.ENGINE).set(0)
            if all(other.served_id != place.served_id for other in self._places.values()):
                metrics.MODEL_LOAD_SECONDS.labels(place.served_id).set(0)

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Queue a text, or forget some."""
        if isinstance(message, Cancel):
            gone = set(message.uids)
            for place in self._places.values():
                place.queue = deque(entry for entry in place.queue if entry[1].uid not in gone)
        elif isinstance(message, Classify):
            if message.model in self._places:
                self._places[message.model].queue.append((self._clock(), message))
            else:
                outbox.put(message.consumer, Failed(message.uid, "internal_error"))

    def work(self, outbox: Outbox) -> None:
        """Score one batch of every model whose batch is due."""
        for place in self._places.values():
            if place.queue and self._due_in_s(place.queue) == 0.0:
                self._score(place, self._without_late(self._next_batch(place.queue), outbox), outbox)
            metrics.REQUESTS_WAITING.labels(place.served_id, metrics.ENGINE).set(len(place.queue))

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

    def _score(self, place: _Place, batch: list[Classify], outbox: Outbox) -> None:
        """Score texts together; if that raises, each alone, so that only those at fault fail."""
        if not batch:
            return
        try:
            rows = place.score([call.prompt_ids for call in batch])
        except Exception:
            logger.exception("a batch of %d texts failed", len(batch))
            if len(batch) == 1:
                outbox.put(batch[0].consumer, Failed(batch[0].uid, "internal_error"))
                return
            for call in batch:
                self._score(place, [call], outbox)
            return
        labels = (place.served_id, metrics.ENGINE)
        metrics.BATCH_SIZE.labels(*labels).observe(len(batch))
        metrics.CLASSIFY_ITEMS.labels(*labels).inc(len(batch))
        metrics.PROMPT_TOKENS.labels(*labels).inc(sum(len(call.prompt_ids) for call in batch))
        for call, logits in zip(batch, rows, strict=True):
            outbox.put(call.consumer, Classified(call.uid, logits))
