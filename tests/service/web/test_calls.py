"""The mailbox of a request: nothing that arrives is lost, and nobody waits for what has already happened."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.host.messages import Token
from service.web.calls import MAX_UNREAD, Call
from service.web.errors import ClientGone, InternalError, RequestTimeout

FIRST, SECOND = Token("a", 1), Token("a", 2)


def in_time(story: Callable[[Call], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(story(Call("generate", "model", {"a": 3})), 10)

    asyncio.run(main())


def test_what_arrived_is_taken_at_once_and_in_order() -> None:
    async def story(call: Call) -> None:
        call.deliver(FIRST)
        call.deliver(SECOND)
        assert await call.receive() == [FIRST, SECOND]

    in_time(story)


def test_waiting_ends_when_something_arrives() -> None:
    async def story(call: Call) -> None:
        waiting = asyncio.create_task(call.receive())
        await asyncio.sleep(0)
        call.deliver(FIRST)
        assert await waiting == [FIRST]

    in_time(story)


def test_silence_gives_an_empty_list() -> None:
    async def story(call: Call) -> None:
        assert await call.receive(0.01) == []
        call.deliver(FIRST)
        assert await call.receive(0.01) == [FIRST]

    in_time(story)


def test_a_failure_comes_after_what_arrived_before_it() -> None:
    async def story(call: Call) -> None:
        call.deliver(FIRST)
        call.fail(InternalError())
        call.fail(RequestTimeout())
        assert await call.receive() == [FIRST]
        for _ in range(2):
            with pytest.raises(InternalError):
                await call.receive()

    in_time(story)


def test_who_is_slow_is_waited_for_unless_too_much_waits_for_too_long() -> None:
    async def story(call: Call) -> None:
        for _ in range(MAX_UNREAD + 1):
            call.deliver(FIRST)
        assert len(await call.receive()) == MAX_UNREAD + 1
        call.patience_s = 0.0
        for _ in range(MAX_UNREAD):
            call.deliver(FIRST)
        assert not call.is_abandoned
        call.deliver(FIRST)
        assert call.is_abandoned
        with pytest.raises(ClientGone):
            await call.receive()

    in_time(story)


def test_a_client_that_left_comes_before_everything() -> None:
    async def story(call: Call) -> None:
        async def disconnect() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async with call.watching(disconnect):
            await asyncio.sleep(0)
            call.deliver(FIRST)
            for _ in range(2):
                with pytest.raises(ClientGone):
                    await call.receive()

    in_time(story)
