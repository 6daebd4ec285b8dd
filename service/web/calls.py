"""One HTTP request in flight at the workers: its sequences, and a mailbox for what arrives for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from starlette.types import Receive

from service.host.messages import Event
from service.web.errors import ApiError, ClientGone

MAX_UNREAD = 10_000
"""Events that wait for a client that takes none; with log-probabilities they are 27 MB."""
PATIENCE_S = 10.0
"""How long the oldest of them may wait once there are so many."""

Phase = Literal["queued", "prefill", "decode"]


class Call:
    """The mailbox of one request. The frontend fills it; the request's own task empties it."""

    def __init__(self, worker: str, model_id: str, waiting_tokens: Mapping[str, int]) -> None:
        """`waiting_tokens` has the prompt length of each sequence, by uid."""
        self.worker = worker
        self.model_id = model_id
        self.waiting = dict(waiting_tokens)
        """Sequences that have not been admitted yet."""
        self.unfinished = set(waiting_tokens)
        """Sequences that the worker still works on, or will."""
        self.phase: Phase = "queued"
        self.patience_s = PATIENCE_S
        self.is_abandoned = False
        """Whether the client has left, or reads so slowly that it is given up."""
        self.oldest_s = 0.0
        """When the first of the events that `receive` gave last arrived."""
        self._oldest_s = 0.0
        self._events: list[Event] = []
        self._failure: ApiError | None = None
        self._wake = asyncio.Event()

    def deliver(self, event: Event) -> None:
        """Put an event into the mailbox."""
        if not self._events:
            self._oldest_s = time.monotonic()
        self._events.append(event)
        if len(self._events) > MAX_UNREAD and time.monotonic() - self._oldest_s > self.patience_s:
            self._abandon()
        self._wake.set()

    def fail(self, error: ApiError) -> None:
        """Let the request end with this error, after what has already arrived."""
        self._failure = self._failure or error
        self._wake.set()

    async def receive(self, timeout_s: float | None = None) -> list[Event]:
        """Wait for events and take all of them; an empty list means that `timeout_s` passed without any.

        Raises:
            ApiError: the request failed.
            ClientGone: nobody waits for the answer any more.
        """
        if not (self._events or self._failure or self.is_abandoned):
            await self._wait(timeout_s)
        self._wake.clear()
        if self.is_abandoned:
            raise ClientGone
        if not self._events and self._failure is not None:
            raise self._failure
        events, self._events, self.oldest_s = self._events, [], self._oldest_s
        return events

    @asynccontextmanager
    async def watching(self, receive: Receive) -> AsyncIterator[None]:
        """Notice when the client closes its connection. The body must have been read."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            yield
        finally:
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._abandon()

    def _abandon(self) -> None:
        self.is_abandoned = True
        self._events.clear()
        self._wake.set()

    async def _wait(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            await self._wake.wait()
            return
        timer = asyncio.get_running_loop().call_later(timeout_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
