"""The HTTP side of the workers: which are up, who may still enter, who waits, and what has arrived for whom.

Everything runs on the event loop of the HTTP process and none of it blocks. Text and JSON are not known here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from service import metrics
from service.host.messages import (
    Admitted,
    Cancel,
    Classify,
    Drain,
    Embed,
    Event,
    Failed,
    FailureCode,
    Generate,
    ModelFailed,
    ModelUp,
    StepEvents,
    ToHttp,
    Token,
    ToWorker,
    WorkerDown,
    WorkerUp,
)
from service.settings import ServiceSettings
from service.web.calls import Call
from service.web.errors import (
    ApiError,
    ClientGone,
    ConstraintTooComplex,
    EngineUnavailable,
    InternalError,
    ModelLoading,
    QueueTimeout,
    RequestTimeout,
    ServerOverloaded,
    ServerShuttingDown,
)
from service.web.loads import Loads
from service.web.models import ServedModel, ServedModels

Status = Literal["ok", "loading", "draining", "engine_stalled"]

_FAILURES: Mapping[FailureCode, type[QueueTimeout | RequestTimeout | InternalError | ConstraintTooComplex]] = {
    "queue_timeout": QueueTimeout,
    "timeout": RequestTimeout,
    "internal_error": InternalError,
    "invalid_constraint": ConstraintTooComplex,
}


class Channel(Protocol):
    """The way to one worker."""

    def send(self, message: ToWorker) -> None:
        """Hand a message over; must not block."""

    def reset(self) -> None:
        """Forget what a dead worker has not taken."""

    @property
    def heartbeat_age_s(self) -> float | None:
        """Seconds since its last sign of life; None while it loads."""


@dataclass(slots=True)
class _Worker:
    channel: Channel
    is_up: bool = False
    was_up: bool = False
    pid: int | None = None
    """Of its latest life that we heard of."""
    num_waiting: int = 0
    waiting_tokens: int = 0


class Frontend:
    """Everything routes need to reach the workers."""

    def __init__(self, models: ServedModels, channels: Mapping[str, Channel], settings: ServiceSettings) -> None:
        """Made in the main process, before the HTTP process is forked: no sockets, no event loop yet."""
        self.models = models
        self.consumer = 0
        """Index of this HTTP process; workers address their events to it."""
        self._settings = settings
        self._workers = {name: _Worker(channel) for name, channel in channels.items()}
        self.loads = Loads(models, channels, settings)
        """Which versions the workers have."""
        self._calls: dict[str, Call] = {}
        self._drain_phase: str | None = None

    # From the bus

    def start(self, consumer: int) -> None:
        """Begin in the HTTP process."""
        self.consumer = consumer
        self.loads.start(consumer)

    def on_message(self, message: ToHttp) -> None:
        """Take one message from a worker or from the main process."""
        match message:
            case StepEvents():
                for event in message.events:
                    self._on_event(event)
            case WorkerUp():
                self._on_worker_up(message)
            case ModelUp():
                self.loads.on_model_up(message)
            case ModelFailed():
                self.loads.on_model_failed(message)
            case WorkerDown():
                worker = self._workers[message.worker]
                if worker.pid == message.pid or not worker.is_up:  # else its successor has told us already
                    self._on_worker_down(message.worker)
            case Drain():
                self._on_drain(message)

    # For the routes

    def status(self) -> Status:
        """Say whether this service should get requests, and if not, why."""
        if self._drain_phase is not None:
            return "draining"
        if not (all(worker.is_up for worker in self._workers.values()) and self.loads.is_complete):
            return "loading"
        return "engine_stalled" if self.is_stalled else "ok"

    @property
    def is_stalled(self) -> bool:
        """Whether a worker that runs has shown no sign of life for too long."""
        ages_s = [worker.channel.heartbeat_age_s for worker in self._workers.values() if worker.is_up]
        return any(age_s is not None and age_s > self._settings.liveness_timeout_s for age_s in ages_s)

    @contextmanager
    def call(self, model: ServedModel, messages: Sequence[Generate | Embed | Classify]) -> Iterator[Call]:
        """Send a request's sequences to a model's worker; when the block is left, whatever still runs is cancelled.

        Raises:
            ServerShuttingDown, ModelLoading, EngineUnavailable, ServerOverloaded: there is no way in.
        """
        worker = self._workers[model.worker]
        call = Call(model.worker, model.id, {message.uid: len(message.prompt_ids) for message in messages})
        self._check_entry(worker, model, call)
        worker.num_waiting += len(call.waiting)
        worker.waiting_tokens += sum(call.waiting.values())
        try:
            for message in messages:
                self._calls[message.uid] = call
                worker.channel.send(message)
            yield call
        except ClientGone:
            metrics.CLIENT_DISCONNECTS.labels(call.phase).inc()
            raise
        finally:
            self.cancel(call, call.unfinished)

    def cancel(self, call: Call, uids: Iterable[str]) -> None:
        """Stop some sequences of a call."""
        running = [uid for uid in uids if uid in call.unfinished]
        for uid in running:
            self._end(call, uid)
        worker = self._workers[call.worker]
        if running and worker.is_up:
            worker.channel.send(Cancel(running))

    def check_open(self) -> None:
        """Refuse what changes the service while it ends.

        Raises:
            ServerShuttingDown: it does.
        """
        if self._drain_phase is not None:
            raise ServerShuttingDown

    # Within

    def _check_entry(self, worker: _Worker, model: ServedModel, call: Call) -> None:
        if self._drain_phase in ("reject", "abort"):
            self._refuse(call, ServerShuttingDown())
        if not (worker.is_up and self.loads.is_loaded(model.version)):
            self._refuse(call, EngineUnavailable() if worker.was_up else ModelLoading())
        num_waiting = worker.num_waiting + len(call.waiting)
        waiting_tokens = worker.waiting_tokens + sum(call.waiting.values())
        if num_waiting > self._settings.max_waiting_requests or waiting_tokens > self._settings.max_waiting_tokens:
            self._refuse(call, ServerOverloaded(self._settings.overload_status))

    def _refuse(self, call: Call, error: ApiError) -> NoReturn:
        metrics.ADMISSION_REJECTIONS.labels(call.model_id, error.code).inc()
        raise error

    def _on_event(self, event: Event) -> None:
        call = self._calls.get(event.uid)
        if call is None:
            return  # cancelled a moment ago
        match event:
            case Token():
                call.phase = "decode"
                if event.finish_reason is not None:
                    self._end(call, event.uid)
            case Admitted():
                call.phase = "prefill" if call.phase == "queued" else call.phase
                self._leave_queue(call, event.uid)
            case Failed():
                self._end(call, event.uid)
                call.fail(_FAILURES[event.code]())
                return
            case _:
                self._end(call, event.uid)
        call.deliver(event)
        if call.is_abandoned:
            self.cancel(call, call.unfinished)

    def _end(self, call: Call, uid: str) -> None:
        self._leave_queue(call, uid)
        self._calls.pop(uid, None)
        call.unfinished.discard(uid)

    def _leave_queue(self, call: Call, uid: str) -> None:
        num_tokens = call.waiting.pop(uid, None)
        if num_tokens is not None:
            worker = self._workers[call.worker]
            worker.num_waiting -= 1
            worker.waiting_tokens -= num_tokens

    def _on_worker_up(self, message: WorkerUp) -> None:
        worker = self._workers[message.worker]
        if worker.is_up:  # its death is told later
            self._on_worker_down(message.worker)
        worker.is_up = worker.was_up = True
        worker.pid = message.pid
        self.loads.on_worker_up(message)

    def _on_worker_down(self, name: str) -> None:
        worker = self._workers[name]
        worker.is_up = False
        worker.channel.reset()
        self.loads.on_worker_down(name)
        for call in self._calls_of(name):
            self._lose(call, InternalError())

    def _on_drain(self, drain: Drain) -> None:
        self._drain_phase = drain.phase
        if drain.phase == "abort":
            for name in self._workers:
                for call in self._calls_of(name):
                    call.fail(ServerShuttingDown())

    def _calls_of(self, worker_name: str) -> list[Call]:
        return [call for call in set(self._calls.values()) if call.worker == worker_name]

    def _lose(self, call: Call, error: ApiError) -> None:
        for uid in list(call.unfinished):
            self._end(call, uid)
        call.fail(error)
