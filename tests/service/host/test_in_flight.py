"""A request is in flight until its answer is complete, whatever becomes of it."""

import asyncio

import pytest

from service.host.in_flight import CountInFlight, InFlight


@pytest.mark.parametrize("fault", [None, RuntimeError("scripted fault"), asyncio.CancelledError()])
def test_a_request_counts_until_its_end_even_a_bad_one(fault: BaseException | None) -> None:
    in_flight, seen = InFlight(), []

    async def app(scope, receive, send) -> None:
        seen.append(in_flight.count)
        if fault is not None:
            raise fault

    async def ask() -> None:
        await CountInFlight(app, in_flight)({"type": "http"}, None, None)

    if fault is None:
        asyncio.run(ask())
    else:
        with pytest.raises(type(fault)):
            asyncio.run(ask())
    assert (seen, in_flight.count) == ([1], 0)


def test_what_is_no_request_does_not_count() -> None:
    in_flight, seen = InFlight(), []

    async def app(scope, receive, send) -> None:
        seen.append(in_flight.count)

    asyncio.run(CountInFlight(app, in_flight)({"type": "lifespan"}, None, None))
    assert seen == [0]
