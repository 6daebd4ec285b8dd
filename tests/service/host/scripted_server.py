"""A whole service without a model or an OpenAI API: the real supervisor, bus and loop around a worker that counts.

Run as a program. `GET /count?n=N` streams the numbers 1 to N, one for each engine step; the prompt can ask the worker
to fall ill instead. It prints `ready PORT` when the worker is up.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from model.sampling_params import SamplingParams
from service.engine.engine import Engine, RowResult
from service.engine.pages import PagePool
from service.engine.scheduler import Scheduler, StepRow
from service.host.bus import WorkerChannel
from service.host.generation import EngineModel, GenerationTrade
from service.host.messages import (
    Drain,
    Failed,
    Generate,
    LoadModel,
    ModelUp,
    StepEvents,
    ToHttp,
    Token,
    WorkerDown,
    WorkerUp,
)
from service.host.supervisor import Supervisor
from service.host.workers import Worker
from service.logs import configure_logging
from service.settings import ServiceSettings

PROMPTS = {"count": 1, "crash": 2, "hang": 3}
STEP_S = 0.01


class CountingRunner:
    """The next token is one more than the number of outputs."""

    def run(self, rows: list[StepRow]) -> list[RowResult]:
        time.sleep(STEP_S)
        for row in rows:
            if row.request.prompt_ids[0] == PROMPTS["crash"]:
                os._exit(7)
            if row.request.prompt_ids[0] == PROMPTS["hang"]:
                time.sleep(3600)
        return [RowResult(len(row.request.output_ids) + 1) for row in rows]


COUNTER = LoadModel(0, "counter", "counter", "")


class CountingWorker(Worker[EngineModel]):
    def __init__(self, is_broken: bool, load_s: float, settings: ServiceSettings) -> None:
        super().__init__("generate", [COUNTER], settings)
        self.is_broken = is_broken
        self.load_s = load_s

    def make_trade(self) -> GenerationTrade:
        return GenerationTrade()

    def prepare(self) -> None:
        pass

    def load_model(self, message: LoadModel) -> EngineModel:
        time.sleep(self.load_s)
        if self.is_broken:
            raise ValueError("these weights are broken")
        scheduler = Scheduler(PagePool(64, 64), block_size=4096, max_num_seqs=8, max_num_batched_tokens=64)
        return EngineModel(Engine(scheduler, CountingRunner()))


@dataclass
class Call:
    events: "asyncio.Queue[Token | str]"


class ScriptedFrontend:
    """As little of an HTTP side as the host needs to be tried."""

    def __init__(self, channel: WorkerChannel) -> None:
        self.channel = channel
        self.calls: dict[str, Call] = {}
        self.is_up = False
        self.phase = ""
        self.consumer = 0

    def start(self, consumer: int) -> None:
        self.consumer = consumer

    def on_message(self, message: ToHttp) -> None:
        if isinstance(message, StepEvents):
            for event in message.events:
                if isinstance(event, Token | Failed) and event.uid in self.calls:
                    self.calls[event.uid].events.put_nowait(event if isinstance(event, Token) else event.code)
        elif isinstance(message, WorkerUp):
            self.is_up = bool(message.models)
            if not message.models:  # a later life
                self.channel.send(COUNTER)
        elif isinstance(message, ModelUp):
            self.is_up = True
        elif isinstance(message, WorkerDown):
            self.is_up = False
            self.channel.reset()
            self.end_all("worker died")
        elif isinstance(message, Drain):
            self.phase = message.phase
            if message.phase == "abort":
                self.end_all("shutting down")

    def end_all(self, reason: str) -> None:
        for call in self.calls.values():
            call.events.put_nowait(reason)

    async def health(self, request: HttpRequest) -> Response:
        status = "loading" if not self.is_up else self.phase or "ok"
        return PlainTextResponse(status, 200 if status == "ok" else 503)

    async def count(self, request: HttpRequest) -> Response:
        if not self.is_up or self.phase == "reject":
            return PlainTextResponse("no", 503)
        call = Call(asyncio.Queue())
        uid = os.urandom(8).hex()
        self.calls[uid] = call
        params = SamplingParams(max_tokens=int(request.query_params["n"]))
        prompt_ids = [PROMPTS[request.query_params.get("prompt", "count")]]
        soon = time.monotonic() + 60
        self.channel.send(Generate(uid, self.consumer, "counter", prompt_ids, params, 0, soon, soon))
        return StreamingResponse(self.stream(call))

    async def stream(self, call: Call) -> AsyncIterator[str]:
        while True:
            event = await call.events.get()
            yield f"{event.token_id}\n" if isinstance(event, Token) else f"{event}\n"
            if not isinstance(event, Token) or event.finish_reason is not None:
                return


def main() -> None:
    configure_logging()
    mode, *flags = sys.argv[1:]
    settings = ServiceSettings.model_validate(
        {"checkpoints": ["none"], "drain_delay_s": 0.5, **dict(flag.split("=") for flag in flags)}
    )
    worker = CountingWorker(mode == "broken", 1.0 if mode == "slow" else 0.0, settings)
    supervisor = Supervisor([worker], settings)
    frontend = ScriptedFrontend(supervisor.channels["generate"])
    supervisor.app.add_route("/health", frontend.health)
    supervisor.app.add_route("/count", frontend.count)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    print(f"port {port}", flush=True)
    sys.exit(supervisor.run(frontend, listener, on_ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
