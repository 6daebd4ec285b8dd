"""Server-sent events: the frames of a stream, their order, the keep-alive and the end.

Headers go out with the first event from the worker, so a request that is refused or fails before that still gets its
real status. After the headers a failure is an event of its own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import metrics
from service.web.errors import ApiError, ClientGone, InternalError
from service.web.frontend import Frontend
from service.web.generation import Generation, IndexedDelta, batches
from service.web.middleware import Exchange, exchange_of
from service.web.output import Delta
from service.web.shapes import Envelope, Shape

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

LAST_WORDS_S = 1.0
"""How long after the deadline a client may take to read what is left. One that has stopped reading is given up then,
lest its request stays for ever."""

_MARK = "\x00"
_LINE_BREAKS = tuple((character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\x85\u2028\u2029")
_encode_as_is = msgspec.json.Encoder().encode


def encode_line(value: Any) -> bytes:
    """Return JSON on one line, whatever a reader thinks ends one.

    Only CR and LF do so in events; but many clients split text as Python's `str.splitlines` does, and cut an event at a
    U+2028 inside it. JSON may write these characters as escapes.
    """
    line = _encode_as_is(value)
    if not line.isascii():
        for character, escape in _LINE_BREAKS:
            line = line.replace(character, escape)
    return line


class StreamWriter(Protocol):
    """What a stream says, as bytes; called in the order of the methods."""

    def opening(self, num_choices: int) -> bytes:
        """Return what a stream begins with."""

    def frames(self, deltas: Iterable[IndexedDelta]) -> bytes:
        """Return the events of some deltas, each for one choice."""

    def closing(self) -> bytes:
        """Return what a stream ends with."""

    def failing(self, error: Mapping[str, Any]) -> bytes:
        """Return what a stream ends with that fails, given the JSON object of the error."""


class ChunkWriter:
    """Chunks of one stream as bytes. What never changes is encoded once; a piece of text costs one small encoding."""

    def __init__(
        self,
        shape: Shape,
        envelope: Envelope,
        *,
        usage: Callable[[], Mapping[str, Any]],
        includes_usage: bool,
        has_running_usage: bool,
    ) -> None:
        self._shape = shape
        self._usage = usage
        self._includes_usage = includes_usage
        self._has_running_usage = has_running_usage
        self._head = b"data: " + encode_line(envelope.fields(shape, shape.chunk_object))[:-1] + b',"choices":['
        self._around_text: dict[int, tuple[bytes, bytes]] = {}

    def opening(self, num_choices: int) -> bytes:
        """Return what a stream begins with."""
        choices = [self._shape.opening(index) for index in range(num_choices)]
        return b"".join(self._frame(encode_line(choice)) for choice in choices if choice is not None)

    def frames(self, deltas: Iterable[IndexedDelta]) -> bytes:
        """Return the chunks of some deltas, each for one choice."""
        return b"".join(self._delta(index, delta) for index, delta in deltas)

    def closing(self) -> bytes:
        """Return what a stream ends with."""
        if not self._includes_usage:
            return DONE
        return self._head + b'],"usage":' + encode_line(self._usage()) + b"}\n\n" + DONE

    def failing(self, error: Mapping[str, Any]) -> bytes:
        """Return what a stream ends with that fails, given the JSON object of the error."""
        return b"data: " + encode_line(error) + b"\n\n" + DONE

    def _delta(self, index: int, delta: Delta) -> bytes:
        if delta.is_plain and self._shape.shows_text and not self._has_running_usage:
            return self._text(index, delta.text)
        if delta.finish_reason is None or not delta.text:
            chunk = self._shape.chunk(index, delta)
            return b"" if chunk is None else self._frame(encode_line(chunk))
        last_text = replace(delta, finish_reason=None, stop_reason=None)
        end = Delta(finish_reason=delta.finish_reason, stop_reason=delta.stop_reason)
        return self._delta(index, last_text) + self._delta(index, end)

    def _text(self, index: int, text: str) -> bytes:
        if index not in self._around_text:
            frame = self._frame(encode_line(self._shape.chunk(index, Delta(_MARK))))
            before, _, after = frame.partition(encode_line(_MARK))
            self._around_text[index] = (before, after)
        before, after = self._around_text[index]
        return before + encode_line(text) + after

    def _frame(self, choice: bytes) -> bytes:
        return self._head + choice + b"]" + self._running_usage() + b"}\n\n"

    def _running_usage(self) -> bytes:
        if self._has_running_usage:
            return b',"usage":' + encode_line(self._usage())
        return b',"usage":null' if self._includes_usage else b""


class EventStream(Response):
    """A generation as an answer of server-sent events."""

    media_type = "text/event-stream"

    def __init__(
        self,
        generation: Generation,
        frontend: Frontend,
        writer: StreamWriter,
        *,
        keepalive_s: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._generation = generation
        self._frontend = frontend
        self._writer = writer
        self._keepalive_s = keepalive_s or None
        self._has_started = False
        self._last_sent_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the generation and send what it says.

        Raises:
            ApiError: it was refused or failed before the first byte was sent.
            ClientGone: the client left.
        """
        try:
            await self._send_batches(receive, send)
            last = self._writer.closing()
        except ClientGone:
            raise
        except Exception as error:
            if not self._has_started:
                raise
            last = self._writer.failing(_failure(error, exchange_of(scope)))
        await self._send(last, send, more=False)

    async def _send_batches(self, receive: Receive, send: Send) -> None:
        running = batches(self._generation, self._frontend, receive, silence_s=self._keepalive_s)
        async with aclosing(running):
            async for deltas in running:
                if not self._generation.is_admitted:
                    continue
                frames = b""
                if not self._has_started:
                    await self._start(send)
                    frames = self._writer.opening(self._generation.plan.num_choices)
                frames += self._writer.frames(deltas)
                if not frames and self._is_silent():
                    frames = KEEP_ALIVE
                if frames:
                    await self._send(frames, send)
                if deltas:
                    lag_s = time.monotonic() - self._generation.timings.arrived_s
                    metrics.STREAM_CHUNK_LAG.observe(self._generation.plan.model.id, lag_s)

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._has_started = True
        self._last_sent_s = time.monotonic()

    async def _send(self, frames: bytes, send: Send, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout_at(self._generation.deadline_s + LAST_WORDS_S):
                await send({"type": "http.response.body", "body": frames, "more_body": more})
        except TimeoutError:
            raise ClientGone from None
        self._last_sent_s = time.monotonic()

    def _is_silent(self) -> bool:
        return self._keepalive_s is not None and time.monotonic() - self._last_sent_s >= self._keepalive_s


def _failure(error: Exception, exchange: Exchange) -> dict[str, Any]:
    """Return what a client is told of a failure, and remember the error for the log."""
    if not isinstance(error, ApiError):
        logger.error("the stream of request %s broke", exchange.request_id, exc_info=error)
        error = InternalError()
    exchange.error_code = error.code
    return error.body(exchange.request_id)
