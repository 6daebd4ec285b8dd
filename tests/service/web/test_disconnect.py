"""Clients that leave: in the queue, in prefill, in decode, plain or streamed, every sequence of theirs is cancelled."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from model.sampling_params import SamplingParams
from service import metrics
from service.host.messages import Admitted, Event, Generate, StepEvents, Token
from service.web.calls import MAX_UNREAD
from service.web.errors import ClientGone
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import admitted_then_silent, silent
from tests.service.web.test_streaming import PROMPT, Stream

SOON_S = 5.0


def decoding(message: Generate) -> Iterable[Event]:
    yield Admitted(message.uid, 0.0, 0)
    yield Token(message.uid, 40)


PHASES: dict[str, Callable[[Any], Iterable[Event]]] = {
    "queued": silent,
    "prefill": admitted_then_silent,
    "decode": decoding,
}


def num_disconnects(phase: str) -> float:
    return float(metrics.CLIENT_DISCONNECTS.labels(phase)._value.get())


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("phase", PHASES)
def test_all_sequences_are_cancelled(make_service: ServiceMaker, phase: str, streams: bool) -> None:
    service = make_service(generate=PHASES[phase], max_waiting_requests=4)
    before = num_disconnects(phase)

    async def come_and_go() -> None:
        async with Stream(service, PROMPT | {"prompt": ["a", "b"], "n": 2, "stream": streams}):
            while len(service.generate.requests) < 4:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(come_and_go(), SOON_S))
    assert sorted(service.generate.cancelled) == sorted(request.uid for request in service.generate.requests)
    assert num_disconnects(phase) == before + 1
    # The queue is empty again: another request of four is let in.
    asyncio.run(asyncio.wait_for(come_and_go(), SOON_S))
    assert len(service.generate.requests) == 8


def test_a_client_that_does_not_read_is_given_up(make_service: ServiceMaker) -> None:
    """Before its answer fills the memory: the worker stops, and what waits is forgotten."""
    service = make_service(generate=admitted_then_silent)
    model = service.models.get("tiny-base")
    before = num_disconnects("decode")

    async def read_slowly() -> None:
        message = make_message(model.version)
        with service.frontend.call(model, [message]) as call:
            call.patience_s = 0.0
            for _ in range(MAX_UNREAD + 2):
                service.frontend.on_message(StepEvents([Token(message.uid, 40)]))
            assert service.generate.cancelled == [message.uid]
            await call.receive()

    with pytest.raises(ClientGone):
        asyncio.run(read_slowly())
    assert num_disconnects("decode") == before + 1
    assert service.generate.cancelled == ["slow"]


def make_message(version: str) -> Generate:
    later_s = time.monotonic() + 60
    params = SamplingParams(max_tokens=MAX_UNREAD * 2)
    return Generate("slow", 0, version, [1], params, choice=0, queue_deadline_s=later_s, deadline_s=later_s)


def test_a_thousand_clients_that_leave_take_their_tasks_with_them(make_service: ServiceMaker) -> None:
    def script(message: Generate) -> Iterable[Event]:
        return scripts[int(message.uid, 16) % 3](message)

    scripts = list(PHASES.values())
    service = make_service(generate=script, max_waiting_requests=1000)

    async def come_and_go() -> None:
        tasks = len(asyncio.all_tasks())
        for number in range(100):
            bodies = [PROMPT | {"n": 2, "stream": bool(each % 2)} for each in range(10)]
            async with AsyncExitStack() as clients:
                for body in bodies:
                    await clients.enter_async_context(Stream(service, body))
                while len(service.generate.requests) < 20 * (number + 1):
                    await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == tasks

    asyncio.run(asyncio.wait_for(come_and_go(), 10 * SOON_S))
    assert sorted(service.generate.cancelled) == sorted(request.uid for request in service.generate.requests)


def test_finished_sequences_are_not_cancelled(make_service: ServiceMaker) -> None:
    def script(message: Generate) -> Iterable[Event]:
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, 40, finish_reason="length" if message.choice == 0 else None)

    service = make_service(generate=script)

    async def come_and_go() -> None:
        async with Stream(service, PROMPT | {"n": 2}):
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(come_and_go(), SOON_S))
    assert service.generate.cancelled == [service.generate.requests[1].uid]


def test_nothing_is_sent_to_a_client_that_left(make_service: ServiceMaker) -> None:
    service = make_service(generate=silent)
    stream = Stream(service, PROMPT)

    async def come_and_go() -> None:
        async with stream:
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(come_and_go(), SOON_S))
    assert stream.messages == []


def test_leaving_in_the_middle_of_the_body_is_no_error(make_service: ServiceMaker) -> None:
    service = make_service()
    stream = Stream(service, PROMPT)
    stream._request = [{"type": "http.disconnect"}]

    async def come_and_go() -> None:
        async with stream:
            pass

    asyncio.run(asyncio.wait_for(come_and_go(), SOON_S))
    assert stream.messages == []
    assert service.generate.sent == []


def test_a_client_that_stops_reading_is_given_up_after_its_deadline(make_service: ServiceMaker) -> None:
    service = make_service(generate=decoding, request_timeout_s=0.05, queue_timeout_s=0.05)
    stream = DeafStream(service, PROMPT | {"stream": True})

    async def come_and_stop_reading() -> None:
        async with stream:
            await stream.ended()

    asyncio.run(asyncio.wait_for(come_and_stop_reading(), SOON_S))
    assert service.generate.cancelled == [service.generate.requests[0].uid]


class DeafStream(Stream):
    """A client that keeps its connection and takes nothing after the headers."""

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()
