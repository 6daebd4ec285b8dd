"""A worker that follows a script, and the app in front of it on a real socket: routes are tested without a model.

The script of a sequence is a list of events for it, sent one step at a time; without an end the sequence runs for ever.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import msgspec
import uvicorn
from fastapi import FastAPI
from pydantic import TypeAdapter

from service.host.messages import (
    Admitted,
    Cancel,
    Classified,
    Classify,
    Embed,
    Embedded,
    Event,
    Generate,
    LoadModel,
    ModelUp,
    StepEvents,
    ToHttp,
    Token,
    TokenLogprob,
    ToWorker,
    UnloadModel,
    WorkerUp,
)
from service.settings import ServiceSettings
from service.web.answers import ErrorAnswer
from service.web.frontend import Frontend
from service.web.models import ServedModels
from service.web.openapi import ADMIN_OPERATIONS, OPERATIONS
from service.web.routes import ALIASES, install

T = TypeVar("T")

_decode = msgspec.msgpack.Decoder(ToWorker).decode
Script = Callable[[Any], Iterable[Event]]


class ScriptedWorker:
    """The channel to a worker and the worker itself."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sent: list[ToWorker] = []
        self.num_resets = 0
        self.heartbeat_age_s: float | None = 0.0
        self.frontend: Frontend | None = None
        self._cancelled: set[str] = set()

    @property
    def cancelled(self) -> list[str]:
        return [uid for message in self.sent if isinstance(message, Cancel) for uid in message.uids]

    @property
    def requests(self) -> list[Any]:
        return [message for message in self.sent if not isinstance(message, Cancel | LoadModel | UnloadModel)]

    def send(self, message: ToWorker) -> None:
        message = _decode(msgspec.msgpack.encode(message))  # only what the wire can carry arrives
        self.sent.append(message)
        if isinstance(message, Cancel):
            self._cancelled.update(message.uids)
        elif isinstance(message, LoadModel):
            self.say(ModelUp(message.model))
        elif not isinstance(message, UnloadModel):
            self._play(message.uid, iter(self.script(message)))

    def reset(self) -> None:
        self.num_resets += 1

    def say(self, message: ToHttp) -> None:
        assert self.frontend is not None
        self.frontend.on_message(message)

    def _play(self, uid: str, events: Any) -> None:
        def step() -> None:
            event = next(events, None)
            if event is not None and uid not in self._cancelled:
                self.say(StepEvents([event]))
                self._play(uid, events)

        asyncio.get_running_loop().call_soon(step)


_ANSWERS: dict[tuple[str, str], TypeAdapter[Any]] = {
    (operation.method.upper(), operation.path): TypeAdapter(operation.answer)
    for operation in (*OPERATIONS, *ADMIN_OPERATIONS)
    if operation.answer is not None
}
_ERROR: TypeAdapter[Any] = TypeAdapter(ErrorAnswer)


def check_described(method: str, path: str, response: httpx.Response) -> None:
    """Hold an answer against its type, if it is JSON."""
    path = path.rstrip("/")
    path = ALIASES.get(path, path)
    if method == "HEAD" or not response.headers.get("content-type", "").startswith("application/json"):
        return
    is_error = response.status_code >= 400 and set(response.json()) != {"status"}
    answer = _ERROR if is_error else _ANSWERS.get((method, path))
    if answer is not None:
        answer.validate_json(response.content)


@dataclass
class Service:
    """An app with scripted workers, called as a client calls it."""

    models: ServedModels
    settings: ServiceSettings
    generate: ScriptedWorker
    classify: ScriptedWorker
    is_up: bool = True
    app: FastAPI = field(init=False)
    frontend: Frontend = field(init=False)

    def __post_init__(self) -> None:
        channels = {"generate": self.generate, "classify": self.classify}
        self.frontend = Frontend(self.models, channels, self.settings)
        self.frontend.start(0)
        for name, worker in channels.items():
            worker.frontend = self.frontend
            if self.is_up:
                self.frontend.on_message(WorkerUp(name, 1, tuple(model.version for model in self.models)))
        self.app = FastAPI(openapi_url=None)
        install(self.app, self.frontend, self.settings)

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send one request. Whatever it is answered with, /openapi.json must have said so."""

        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            return await client.request(method, path, **kwargs)

        response = self.run(ask)
        check_described(method, path, response)
        return response

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **kwargs)

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """Return the events of a stream; the last must be `[DONE]`, which is left out."""
        response = self.post(path, {**body, "stream": True})
        assert response.status_code == 200, response.text
        return parse_events(response.text)

    def run(self, ask: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
        async def main() -> T:
            async with listening(self.app) as url, _client(url) as client:
                return await asyncio.wait_for(ask(client), 30)

        return asyncio.run(main())


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used; without it every client would load the machine's certificates, which takes longer than most tests."""


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30, verify=_NO_TLS, trust_env=False)


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app on a free port of the loopback, on this event loop."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # asyncio does so only for sockets whose protocol is named; else the second half of an answer waits for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.force_exit = True  # what a test leaves behind does not finish
            await server.shutdown(sockets=[listener])


def parse_events(text: str) -> list[Any]:
    """Read server-sent events, strictly: each is one `data:` line and a blank line."""
    assert text.endswith("\n\n"), text
    blocks = text[:-2].split("\n\n")
    assert blocks[-1] == "data: [DONE]"
    data = [block for block in blocks[:-1] if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in data)
    return [json.loads(block.removeprefix("data: ")) for block in data]


def writes(
    token_ids: Sequence[int], *, finish: str | None = "length", logprobs: Sequence[TokenLogprob] | None = None
) -> Script:
    """Script: be admitted, generate these tokens, end."""

    def script(message: Generate) -> Iterable[Event]:
        yield Admitted(message.uid, 0.001, 0)
        scores: Sequence[TokenLogprob | None] = logprobs or [None] * len(token_ids)
        for i, (token_id, score) in enumerate(zip(token_ids, scores, strict=True)):
            is_last = i == len(token_ids) - 1
            yield Token(message.uid, token_id, score, finish_reason=finish if is_last else None)

    return script


def scores(*logits: float) -> Script:
    """Script: classify everything alike."""

    def script(message: Classify) -> Iterable[Event]:
        yield Classified(message.uid, list(logits))

    return script


def embeds(*values: float) -> Script:
    """Script: embed everything alike."""

    def script(message: Embed) -> Iterable[Event]:
        yield Embedded(message.uid, list(values))

    return script


def silent(_: object) -> Iterable[Event]:
    """Script: take the request and never answer."""
    return ()


def admitted_then_silent(message: Generate) -> Iterable[Event]:
    """Script: start and get stuck."""
    yield Admitted(message.uid, 0.001, 0)
