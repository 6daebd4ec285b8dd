"""The phases of the end, on a clock that we wind."""

import pytest

from service.host.drain import ABORT_GRACE_S, Drain
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def phases() -> list[str]:
    return []


@pytest.fixture
def drain(clock: Clock, phases: list[str]) -> Drain:
    return Drain(phases.append, delay_s=5, timeout_s=30, clock=clock)


def test_nothing_happens_before_it_begins(drain: Drain, phases: list[str]) -> None:
    drain.advance(0)
    assert (phases, drain.is_over) == ([], False)


def test_each_phase_is_announced_once_and_in_its_time(drain: Drain, phases: list[str], clock: Clock) -> None:
    drain.begin()
    for now_s, expected in [
        (104.9, ["unready"]),
        (105.0, ["unready", "reject"]),
        (134.9, ["unready", "reject"]),
        (135.0, ["unready", "reject", "abort"]),
    ]:
        clock.now_s = now_s
        drain.advance(1)
        drain.advance(1)
        assert phases == expected
    assert not drain.is_over


def test_the_delay_is_kept_even_when_nothing_is_in_flight(drain: Drain, clock: Clock) -> None:
    drain.begin()
    clock.now_s += 4
    drain.advance(0)
    assert not drain.is_over


def test_it_is_over_as_soon_as_the_last_request_is_answered(drain: Drain, clock: Clock, phases: list[str]) -> None:
    drain.begin("reject")
    drain.advance(2)
    assert not drain.is_over
    drain.advance(0)
    assert drain.is_over
    assert phases == ["reject"]


def test_an_abort_that_nobody_hears_is_over_after_its_grace(drain: Drain, clock: Clock) -> None:
    drain.begin("abort")
    drain.advance(1)
    assert not drain.is_over
    clock.now_s += ABORT_GRACE_S
    drain.advance(1)
    assert drain.is_over
