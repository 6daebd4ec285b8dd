"""A server for tests of clients: it answers each path with what a script says, byte by byte, and remembers requests."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass
class Answer:
    """What comes back: a status and the parts of a body, each sent when it is its turn."""

    parts: Iterable[bytes]
    status: int = 200


@dataclass
class StubServer:
    """What was asked so far."""

    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    was_left: threading.Event = field(default_factory=threading.Event)
    """Set once a client has closed its connection in the middle of an answer."""


def cards(*models: object) -> Answer:
    """A list of models: ids, or whole cards."""
    data = [model if isinstance(model, dict) else {"id": model, "object": "model"} for model in models]
    return Answer([json.dumps({"object": "list", "data": data}).encode()])


def chunk(text: str | None, finish_reason: str | None = None) -> bytes:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


def says(*texts: str) -> Answer:
    """A whole answer, in pieces."""
    return Answer([b": welcome\n\n", *map(chunk, texts), chunk(None, "stop"), DONE])


@contextmanager
def stub_server(models: Answer, answer: Callable[[Any], Answer]) -> Iterator[StubServer]:
    """Serve until the end of the block; `answer` is given the body of each question."""
    stub = StubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(models)

        def do_POST(self) -> None:
            stub.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send(answer(stub.bodies[-1]))

        def _send(self, answer: Answer) -> None:
            stub.keys.append(self.headers["Authorization"])
            self.send_response(answer.status)
            self.end_headers()
            try:
                for part in answer.parts:
                    self.wfile.write(part)
            except OSError:
                stub.was_left.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        with suppress(OSError):
            server.server_close()
