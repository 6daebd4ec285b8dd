"""Messages between processes: whole, in order, and never to the wrong life of a worker."""

import asyncio
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.sampling_params import SamplingParams
from service.host.bus import Bus, WorkerChannel
from service.host.messages import (
    Admitted,
    Cancel,
    Classified,
    Classify,
    Drain,
    Failed,
    Generate,
    StepEvents,
    ToHttp,
    Token,
    TokenLogprob,
    ToWorker,
    WorkerDown,
    WorkerUp,
)

GENERATE = Generate(
    "u1", 0, "m", [1, 2], SamplingParams(logit_bias=((3, -100.0),), stop_token_ids=(7,)), 1, 10.0, float("inf")
)
TO_WORKER: list[ToWorker] = [GENERATE, Classify("u2", 0, "c", [5], 1.5), Cancel(["u1", "u2"])]
TO_HTTP: list[ToHttp] = [
    WorkerUp("generate", 17),
    StepEvents(
        [
            Admitted("u1", 0.25, 0),
            Token("u1", 4, TokenLogprob(-0.5, [(4, -0.5), (9, -1.0)]), [None, TokenLogprob(-2.0, [])]),
            Token("u1", None, finish_reason="length"),
            Classified("u2", [0.5, -1.25]),
            Failed("u3", "queue_timeout"),
        ]
    ),
    WorkerDown("generate", 1),
    Drain("reject"),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short: a socket's path may not exceed about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="bus-") as name:
        yield Path(name)


@pytest.fixture
def open_channel(directory: Path) -> Iterator[Callable[[], WorkerChannel]]:
    channels: list[WorkerChannel] = []

    def open_one() -> WorkerChannel:
        channels.append(WorkerChannel("generate", directory))
        return channels[-1]

    yield open_one
    for channel in channels:
        channel.reset()


class ScriptedInbox:
    def __init__(self, num_expected: int) -> None:
        self.messages: list[ToHttp] = []
        self.consumer: int | None = None
        self.is_full = asyncio.Event()
        self._num_expected = num_expected

    def start(self, consumer: int) -> None:
        self.consumer = consumer

    def on_message(self, message: ToHttp) -> None:
        self.messages.append(message)
        if len(self.messages) == self._num_expected:
            self.is_full.set()
        if isinstance(message, WorkerDown):
            raise RuntimeError("scripted fault")


def receive(channel: WorkerChannel, count: int) -> list[ToWorker]:
    messages: list[ToWorker] = []
    for _ in range(100):
        messages += channel.receive(0.1)
        if len(messages) >= count:
            break
    return messages


def test_every_message_to_a_worker_arrives_whole_and_in_order(open_channel: Callable[[], WorkerChannel]) -> None:
    sender = open_channel()
    reader = open_channel()
    reader.bind()
    for message in TO_WORKER:
        sender.send(message)
    assert receive(reader, len(TO_WORKER)) == TO_WORKER


def test_receive_returns_empty_handed_when_nothing_comes(open_channel: Callable[[], WorkerChannel]) -> None:
    channel = open_channel()
    channel.bind()
    assert channel.receive(0.01) == []


def test_what_a_dead_worker_did_not_take_never_reaches_the_next(
    open_channel: Callable[[], WorkerChannel],
) -> None:
    sender = open_channel()
    sender.send(GENERATE)
    sender.reset()
    successor = open_channel()
    successor.bind()
    sender.send(Cancel(["new"]))
    assert receive(successor, 1) == [Cancel(["new"])]


def test_a_heartbeat_is_absent_then_young_then_forgotten(open_channel: Callable[[], WorkerChannel]) -> None:
    channel = open_channel()
    assert channel.heartbeat_age_s is None
    channel.beat()
    age_s = channel.heartbeat_age_s
    assert age_s is not None
    assert 0 <= age_s < 60
    channel.forget_heartbeat()
    assert channel.heartbeat_age_s is None


def test_a_bus_travels_to_a_worker_without_its_inbox_and_sockets(directory: Path) -> None:
    bus = Bus(directory, 1, ScriptedInbox(0))
    bus.send(Drain("reject"), 0)
    copy = pickle.loads(pickle.dumps(bus))
    assert vars(copy).keys() == vars(bus).keys()
    assert (copy._inbox, copy._outgoing, copy._incoming) == (None, {}, None)
    bus.close()


async def deliver(directory: Path, messages: list[ToHttp]) -> ScriptedInbox:
    inbox = ScriptedInbox(len(messages))
    bus, elsewhere = Bus(directory, 1, inbox), Bus(directory, 1)
    task = asyncio.create_task(bus.areceive(0))
    for message in messages:
        elsewhere.broadcast(message)
    await asyncio.wait_for(inbox.is_full.wait(), 10)
    task.cancel()
    bus.close()
    elsewhere.close()
    return inbox


def test_every_message_to_the_http_process_arrives_whole_and_in_order(directory: Path) -> None:
    inbox = asyncio.run(deliver(directory, TO_HTTP))
    assert inbox.consumer == 0
    assert inbox.messages == TO_HTTP


def test_a_fault_over_one_message_does_not_stop_the_next(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox = asyncio.run(deliver(directory, [WorkerDown("generate", 1), Drain("reject")]))
    assert inbox.messages == [WorkerDown("generate", 1), Drain("reject")]
    assert "could not be handled" in caplog.text
