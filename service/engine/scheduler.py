"""Who runs in the next step, and with how many tokens.

Pure policy over two queues and a page pool: no tensors, no clock of its own. What it promises:

- Requests enter the batch in the order of their arrival, and return to it in that order after a preemption. Nobody
  overtakes, not even one that would fit where an earlier one does not.
- Each sequence that decodes gets its token in every step. Prompts share what the budget leaves, in the same order, and
  beside decoding sequences no more than `prefill_chunk_tokens` of them in one step; as many times more as prompts that
  fit are more than such sequences, so that a burst of newcomers does not wait for the few.
- A prompt is begun only after all earlier ones are computed or will be in this step. So whatever it has in common with
  them is in the cache: nothing is computed twice at the same time, and nobody waits for anyone but by arrival.
- The oldest sequence in the batch always advances, so every request ends.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from service.engine.pages import PagePool, first_key, next_key
from service.engine.request import Failure, Request


@dataclass(slots=True)
class StepRow:
    """One sequence's part of a step: `length` tokens from position `start` on, to be written to `pages`."""

    request: Request
    start: int
    length: int
    pages: list[int]

    @property
    def is_complete(self) -> bool:
        """Whether the step reaches the newest token, so that the next one can be sampled."""
        return self.start + self.length == self.request.num_tokens


@dataclass(slots=True)
class Step:
    """What to run now: rows of one token first, then chunks of prompts."""

    rows: list[StepRow] = field(default_factory=list)
    admitted: list[Request] = field(default_factory=list)
    """Requests that left the queue for the first time."""
    num_tokens: int = 0

    def add(self, request: Request, length: int, pages: list[int]) -> None:
        self.rows.append(StepRow(request, request.num_cached, length, pages))
        self.num_tokens += length


class Scheduler:
    """Continuous batching under two limits: sequences at once, and tokens per step.

    When pages run out, the most recently admitted sequence gives up its pages and goes back to the head of the queue;
    its outputs stay, and what the cache no longer holds of it is recomputed later.

    Raises:
        ValueError: the limits can starve a sequence: the pool is smaller than one whole context, or the token budget
            smaller than the number of sequences.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefill_chunk_tokens: int | None = None,
    ) -> None:
        """`prefill_chunk_tokens` limits prompt tokens beside decoding sequences, if these are not the fewer; None: the
        budget alone does."""
        if pool.num_tokens < block_size:
            raise ValueError(
                f"kv_cache_tokens: {pool.num_tokens} cannot hold one sequence of the whole context; "
                f"make it at least {block_size}"
            )
        if max_num_batched_tokens < max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({max_num_batched_tokens}) must be at least max_num_seqs ({max_num_seqs}), "
                "so that every running sequence gets a token in each step"
            )
        self.pool = pool
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefill_chunk_tokens = prefill_chunk_tokens or max_num_batched_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of admission; only the last can have an unfinished prompt
        self.num_preemptions = 0

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ValueError: the prompt is empty or longer than the context.
        """
        if not 0 < len(request.prompt_ids) <= self.block_size:
            raise ValueError(f"a prompt has 1 to {self.block_size} tokens, not {len(request.prompt_ids)}")
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request in whatever phase it is; its pages are free at once."""
        queue = self.running if request in self.running else self.waiting
        queue.remove(request)
        self.pool.release(request.uid)

    def expire(self, now: float) -> list[Failure]:
        """Remove every request whose time is over; one that never ran has waited too long, whichever time it was."""
        overdue = [request for request in (*self.running, *self.waiting) if now >= request.deadline_s]
        unserved = [request for request in self.waiting if not request.was_admitted and now >= request.queue_deadline_s]
        failures = {request: Failure(request.uid, "queue_timeout") for request in unserved}
        failures |= {request: Failure(request.uid, "timeout") for request in overdue if request not in failures}
        for request in failures:
            self.remove(request)
        return list(failures.values())

    def schedule(self) -> Step:
        """Choose the rows of the next step and give each the pages it needs."""
        self._make_room()
        step = Step()

        # Decode: every sequence whose newest token alone is missing from the cache.
        for request in self.running:
            if request.num_uncached == 1:
                self._add_row(step, request, 1)

        # Prefill: what the limits leave, in order of arrival. A prompt that does not fit is cut and goes on next time.
        room = self.max_num_batched_tokens - step.num_tokens
        unfinished = [request for request in self.running if request.num_uncached > 1]
        if step.rows:
            num_newcomers = len(unfinished) + self._count_admissible()
            room = min(room, self.prefill_chunk_tokens * max(1, num_newcomers // len(step.rows)))
        while room and (following := unfinished.pop(0) if unfinished else self._admit(step)):
            length = min(room, following.num_uncached)
            self._add_row(step, following, length)
            room -= length
        return step

    def undo(self, row: StepRow) -> None:
        """Take note that a row was not computed: nobody may find the pages it was to fill."""
        self.pool.withdraw(row.request.uid, row.start // self.pool.page_size)

    def restart(self, first: Request) -> None:
        """Put a running sequence, and with it all that came later, back to the head of the queue."""
        place = self.running.index(first)
        for request in reversed(self.running[place:]):
            self.pool.release(request.uid)
            request.num_cached = 0
            request.pooled = []
            self.waiting.appendleft(request)
        self.num_preemptions += len(self.running) - place
        del self.running[place:]

    def _make_room(self) -> None:
        """Give every running sequence the page of its newest token; preempt the newest sequences until that works."""
        while sum(self.pool.num_missing(r.uid, r.num_tokens) for r in self.running) > self.pool.num_free:
            self.restart(self.running[-1])
        for request in self.running:
            self.pool.grow(request.uid, request.num_tokens)

    def _count_admissible(self) -> int:
        """Count those at the head of the queue for whom there are seats and pages now."""
        count, num_free = 0, self.pool.num_free
        for request in islice(self.waiting, self.max_num_seqs - len(self.running)):
            num_free -= -(-request.num_tokens // self.pool.page_size)
            if num_free < 0:
                break
            count += 1
        return count

    def _admit(self, step: Step) -> Request | None:
        """Move the head of the queue into the batch, with pages for all of its tokens; None if it must wait."""
        if not self.waiting or len(self.running) == self.max_num_seqs:
            return None
        request = self.waiting[0]
        # The newest token is always computed: what follows is sampled from it.
        keys = self._page_keys(request, request.num_tokens - 1) if request.may_reuse else []
        num_cached = self.pool.admit(request.uid, keys, request.num_tokens)
        if num_cached is None:
            return None
        request.num_cached = num_cached
        self.running.append(self.waiting.popleft())
        if not request.was_admitted:
            request.was_admitted = True
            step.admitted.append(request)
        return request

    def _add_row(self, step: Step, request: Request, length: int) -> None:
        """Let a sequence compute some tokens. The pages they fill may be shared at once: writing comes first."""
        step.add(request, length, self.pool.owned_by(request.uid))
        first = request.num_cached // self.pool.page_size
        keys = self._page_keys(request, request.num_cached + length)
        self.pool.publish(request.uid, first, keys[first:])

    def _page_keys(self, request: Request, num_tokens: int) -> list[bytes]:
        """Return the keys of all full pages among the first tokens of a sequence."""
        keys, size = request.page_keys, self.pool.page_size
        while len(keys) < num_tokens // size:
            first = len(keys) * size
            before = keys[-1] if keys else first_key(request.adapter, request.cache_salt)
            keys.append(next_key(before, request.token_ids(first, first + size)))
        return keys[: num_tokens // size]
