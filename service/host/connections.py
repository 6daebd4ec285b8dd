"""One client's connection, with limits that uvicorn lacks: how long a request's head is, how long it takes to come.

Without them a client that sends headers for ever fills our memory, and those that send half a request keep a socket, a
task and a place among the open files each. What cannot be parsed is answered here, since no route ever sees it.
"""

import asyncio
import json
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits."""

    def __init__(self, *, max_head_bytes: int, receive_timeout_s: float, **uvicorn: Any) -> None:
        """`max_head_bytes` bounds request line and headers, `receive_timeout_s` the time until a request is whole."""
        super().__init__(**uvicorn)
        self.ws_protocol_class = (
            None  # who asks for a WebSocket is answered as if not: other limits and errors hold there
        )
        self._max_head_bytes = max_head_bytes
        self._receive_timeout_s = receive_timeout_s
        self._patience: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._is_in_message = False
        self._num_begun = 0
        """Requests that began in what arrived last."""
        self._head_bytes = 0
        self._raw_head_bytes = 0
        """What came since the head began: counts a header that does not end, too, which is parsed only when it does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._begin_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_message, self._num_begun = self._is_in_message, 0
        super().data_received(data)
        if self._is_in_head and not self.transport.is_closing():
            # Behind another request, where a head begins is not known: that once, only what is parsed of it counts.
            is_head_alone = self._num_begun == 0 or (self._num_begun == 1 and not was_in_message)
            self._raw_head_bytes += len(data) if is_head_alone else 0
            if self._raw_head_bytes > self._max_head_bytes:
                self.send_400_response("")

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._num_begun += 1
        self._head_bytes = self._raw_head_bytes = 0
        self._begin_waiting()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_message = False
        self._end_waiting()
        super().on_message_complete()

    # Refusals

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request with an error object, and close. uvicorn calls this when the parser gives up."""
        is_too_long = max(self._head_bytes, self._raw_head_bytes) > self._max_head_bytes
        status, code, message = 400, None, "We could not parse your HTTP request."
        if is_too_long and self._is_in_head:
            status, code = 431, "request_too_large"
            message = f"Request line and headers are too large: the maximum is {self._max_head_bytes} bytes."
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        content = json.dumps({"error": error}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "x-request-id": f"req_{uuid.uuid4().hex}",
            "connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + content)
        self.transport.close()

    def _count(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > self._max_head_bytes:
            raise ValueError("the head is too long")  # the parser stops, and data_received refuses

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: it would be a line for every such request."""

    # Patience

    def _begin_waiting(self) -> None:
        self._end_waiting()
        self._patience = self.loop.call_later(self._receive_timeout_s, self._lose_patience)

    def _end_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if is_answering or self.pipeline:  # only the next request is late, and an answer is still on its way
            self._begin_waiting()
        else:
            self.transport.abort()
