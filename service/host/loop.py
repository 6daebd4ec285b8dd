"""The life of a worker after its weights are loaded: take messages, work, say what happened, again.

It knows neither models nor batches; a `Trade` does the work of one turn.
"""

import os
from collections import defaultdict
from typing import Any, Protocol

from litserve.loops.base import LitLoop

from service.host.bus import Bus, WorkerChannel
from service.host.messages import Event, ModelFailed, ModelUp, StepEvents, ToWorker, WorkerUp

IDLE_TICK_S = 0.5
"""How often an idle worker wakes to beat its heart; between, it sleeps in the kernel."""


class Outbox:
    """The events of one turn, by the HTTP process that wants them."""

    def __init__(self) -> None:
        self._events: defaultdict[int, list[Event]] = defaultdict(list)
        self._news: list[tuple[int, ModelUp | ModelFailed]] = []

    def put(self, consumer: int, event: Event) -> None:
        """Keep an event until the end of the turn."""
        self._events[consumer].append(event)

    def tell(self, consumer: int, news: ModelUp | ModelFailed) -> None:
        """Keep a message about a model until the end of the turn."""
        self._news.append((consumer, news))

    def flush(self, bus: Bus) -> None:
        """Send one message to each HTTP process that has events, and each that is about a model."""
        for consumer, events in self._events.items():
            bus.send(StepEvents(events), consumer)
        self._events.clear()
        for consumer, news in self._news:
            bus.send(news, consumer)
        self._news.clear()


class Trade(Protocol):
    """What a worker does for a living."""

    @property
    def patience_s(self) -> float:
        """How long the next turn may wait for messages: 0 while there is work."""

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Accept one message."""

    def work(self, outbox: Outbox) -> None:
        """Do one turn's work; quick when there is none."""


class WorkerLoop(LitLoop):  # type: ignore[misc]  # LitServe carries no types
    """Runs a worker's trade for ever. An exception ends the process; the supervisor answers for what is lost."""

    def __call__(self, lit_api: Any, device: str, worker_id: int, channel: WorkerChannel, bus: Bus, *_: object) -> None:
        """Begin, as LitServe begins its loops."""
        channel.bind()
        trade, outbox = lit_api.trade(), Outbox()
        channel.beat()
        bus.broadcast(WorkerUp(channel.name, os.getpid(), lit_api.model_names))
        while True:
            turn(trade, channel, bus, outbox)


def turn(trade: Trade, channel: WorkerChannel, bus: Bus, outbox: Outbox) -> None:
    """Beat, take what has arrived, work, send."""
    channel.beat()
    for message in channel.receive(min(trade.patience_s, IDLE_TICK_S)):
        trade.take(message, outbox)
    trade.work(outbox)
    outbox.flush(bus)
