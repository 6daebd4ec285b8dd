"""Texts that arrive close together are scored together, and answered as if they had been alone."""

import math

import pytest
from prometheus_client import CollectorRegistry, multiprocess

from service import metrics
from service.host.classification import ClassificationTrade
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Cancel, Classified, Classify, Event, Failed, LoadModel

POISON = 13


class Bench:
    """A classify worker on a table, with a clock that we wind; a text's score is the sum of its ids."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.batches: list[int] = []
        self.sent: list[Event] = []
        self.trade = ClassificationTrade(batch_size=4, batch_tokens=100, batch_wait_s=0.01, clock=lambda: self.now_s)
        self.trade.add(LoadModel(0, "m", "m", ""), self.score)
        self.outbox = Outbox()

    def score(self, rows):
        self.batches.append(len(rows))
        if any(POISON in ids for ids in rows):
            raise RuntimeError("scripted fault")
        return [[float(sum(ids))] for ids in rows]

    def send(self, message, consumer: int) -> None:
        self.sent += message.events

    def turn(self, *messages) -> None:
        for message in messages:
            self.trade.take(message, self.outbox)
        self.trade.work(self.outbox)
        self.outbox.flush(self)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ask(uid: str, *prompt_ids: int, model: str = "m", deadline_s: float = math.inf) -> Classify:
    return Classify(uid, 0, model, list(prompt_ids), deadline_s)


def test_a_full_batch_goes_at_once(bench: Bench) -> None:
    bench.turn(*(ask(str(n), n) for n in range(5)))
    assert bench.batches == [4]
    assert bench.sent == [Classified(str(n), [float(n)]) for n in range(4)]


def test_a_batch_of_long_texts_is_cut_so_that_no_turn_takes_long(bench: Bench) -> None:
    lengths = [40, 45, 20, 300, 1]
    bench.turn(*(ask(str(n), *[1] * length) for n, length in enumerate(lengths)))
    for _ in lengths:
        bench.now_s += 0.02
        bench.turn()
    assert bench.batches == [2, 1, 1, 1]  # padded to 2 x 45; one text may exceed the bound alone
    assert bench.sent == [Classified(str(n), [float(length)]) for n, length in enumerate(lengths)]


def test_an_incomplete_batch_waits_for_company_but_not_longer_than_it_may(bench: Bench) -> None:
    bench.turn(ask("a", 1))
    assert bench.batches == []
    assert bench.trade.patience_s == pytest.approx(0.01)
    bench.now_s += 0.006
    bench.turn(ask("b", 2))
    assert bench.trade.patience_s == pytest.approx(0.004)
    bench.now_s += 0.0041
    bench.turn()
    assert bench.batches == [2]


def test_it_sleeps_when_nothing_waits(bench: Bench) -> None:
    assert bench.trade.patience_s == IDLE_TICK_S
    bench.turn()
    assert bench.batches == []


def test_cancelled_and_late_texts_are_not_scored(bench: Bench) -> None:
    bench.turn(ask("gone", 1), ask("late", 2, deadline_s=100.001), ask("good", 3))
    bench.now_s += 0.02
    bench.turn(Cancel(["gone"]))
    assert bench.batches == [1]
    assert bench.sent == [Failed("late", "queue_timeout"), Classified("good", [3.0])]


def test_a_fault_fails_only_the_text_at_fault(bench: Bench) -> None:
    bench.turn(ask("a", 1), ask("bad", POISON), ask("b", 2), ask("c", 3))
    assert sorted(bench.sent, key=lambda event: event.uid) == [
        Classified("a", [1.0]),
        Classified("b", [2.0]),
        Failed("bad", "internal_error"),
        Classified("c", [3.0]),
    ]


def test_a_classifier_that_goes_takes_the_time_it_took_to_load_along(bench: Bench) -> None:
    def load_seconds() -> float | None:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return registry.get_sample_value("groundup_model_load_seconds", {"model_name": "m"})

    metrics.MODEL_LOAD_SECONDS.labels("m").set(2.5)
    bench.trade.add(LoadModel(0, "m/1", "m", ""), bench.score)
    bench.trade.remove("m", bench.outbox)
    assert load_seconds() == 2.5, "its successor is there"
    bench.trade.remove("m/1", bench.outbox)
    assert load_seconds() == 0


def test_a_text_for_an_unknown_model_is_answered_too(bench: Bench) -> None:
    bench.turn(ask("a", 1, model="other"))
    assert bench.sent == [Failed("a", "internal_error")]
