"""When a dead worker may live again."""

from pathlib import Path

import pytest

from service.host.bus import WorkerChannel
from service.host.loading import ModelTrade
from service.host.messages import LoadModel
from service.host.ward import FIRST_DELAY_S, GOOD_LIFE_S, LONGEST_DELAY_S, Ward
from service.host.workers import Worker
from service.settings import ServiceSettings
from tests.clock import Clock

SETTINGS = ServiceSettings(checkpoints=(Path("none"),))


class IdleWorker(Worker[None]):
    def make_trade(self) -> ModelTrade[None]:
        raise NotImplementedError

    def load_model(self, message: LoadModel) -> None: ...


class Process:
    """Alive, as far as anyone can tell."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ward(clock: Clock, tmp_path: Path) -> Ward:
    return Ward(IdleWorker("idle", [], SETTINGS), WorkerChannel("idle", tmp_path), clock=clock)


def live(ward: Ward, clock: Clock, for_s: float) -> float:
    """One life and death; returns the wait that follows."""
    ward.born(Process())  # type: ignore[arg-type]
    clock.now_s += for_s
    ward.died()
    death_s = clock.now_s
    while not ward.is_due:
        clock.now_s += 0.1
    return clock.now_s - death_s


def test_a_worker_is_up_from_its_first_heartbeat_to_its_death(ward: Ward) -> None:
    ward.born(Process())  # type: ignore[arg-type]
    assert not ward.is_up
    ward.channel.beat()
    assert ward.is_up
    ward.died()
    assert not ward.is_up
    assert ward.has_worked


def test_a_worker_that_never_beat_has_not_worked(ward: Ward, clock: Clock) -> None:
    live(ward, clock, for_s=3)
    assert not ward.has_worked


def test_deaths_in_a_row_double_the_wait_up_to_a_cap(ward: Ward, clock: Clock) -> None:
    waits_s = [live(ward, clock, for_s=1) for _ in range(7)]
    expected_s = [min(FIRST_DELAY_S * 2**n, LONGEST_DELAY_S) for n in range(7)]
    assert waits_s == pytest.approx(expected_s, abs=0.11)
    assert ward.num_deaths == 7


def test_a_good_life_forgives_earlier_deaths(ward: Ward, clock: Clock) -> None:
    for _ in range(4):
        live(ward, clock, for_s=1)
    live(ward, clock, for_s=GOOD_LIFE_S)
    assert ward.num_deaths == 1
