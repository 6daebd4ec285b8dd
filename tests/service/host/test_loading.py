"""Models that come while others run, and go."""

import threading

import pytest

from service.host.loading import LoadingTrade
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Cancel, LoadModel, ModelFailed, ModelUp, StepEvents, UnloadModel
from tests.program import poll


class ScriptedTrade:
    """Takes whatever models it is given, and notes what happens."""

    patience_s = IDLE_TICK_S

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        self.taken: list[object] = []
        self.num_turns = 0

    def add(self, message: LoadModel, model: str) -> None:
        self.models[message.model] = model

    def remove(self, name: str, outbox: Outbox) -> None:
        self.models.pop(name, None)

    def take(self, message: object, outbox: Outbox) -> None:
        self.taken.append(message)

    def work(self, outbox: Outbox) -> None:
        self.num_turns += 1


class Bench:
    """A trade on a table; a model is loaded when it is let in, or fails by its path."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.may_load.set()
        self.num_preparations = 0
        self.trade = ScriptedTrade()
        self.loading = LoadingTrade(self.trade, self.load, self.prepare)
        self.outbox = Outbox()
        self.sent: list[object] = []

    def load(self, message: LoadModel) -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert self.may_load.wait(10)
        if message.path == "bad":
            raise ValueError("bad: no such directory")
        if message.path == "broken":
            raise RuntimeError("secret")
        return f"weights of {message.path}"

    def prepare(self) -> None:
        self.num_preparations += 1

    def send(self, message: object, consumer: int) -> None:
        self.sent.append((consumer, message))

    def turn(self, *messages: object) -> None:
        for message in messages:
            self.loading.take(message, self.outbox)  # type: ignore[arg-type]
        self.loading.work(self.outbox)
        self.outbox.flush(self)  # type: ignore[arg-type]

    def hears(self, *expected: object) -> None:
        def turn() -> bool:
            self.turn()
            return len(self.sent) >= len(expected)

        poll(turn, 10, "no answer")
        assert self.sent == list(expected)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def load(name: str, path: str = "here", consumer: int = 0) -> LoadModel:
    return LoadModel(consumer, name, name, path)


def test_a_model_joins_when_it_is_loaded_and_its_owner_is_told(bench: Bench) -> None:
    bench.turn(load("a", consumer=2))
    bench.hears((2, ModelUp("a")))
    assert bench.trade.models == {"a": "weights of here"}


def test_work_goes_on_while_a_model_is_read(bench: Bench) -> None:
    bench.may_load.clear()
    bench.turn(load("slow"))
    bench.turn(Cancel(["x"]))
    assert bench.trade.taken == [Cancel(["x"])]
    assert bench.trade.num_turns == 2
    assert bench.trade.models == {}
    assert bench.loading.patience_s < IDLE_TICK_S
    bench.may_load.set()
    bench.hears((0, ModelUp("slow")))
    assert bench.loading.patience_s == IDLE_TICK_S


def test_models_join_in_the_order_they_were_asked_for(bench: Bench) -> None:
    bench.turn(load("base"), load("adapter"), load("third"))
    bench.hears((0, ModelUp("base")), (0, ModelUp("adapter")), (0, ModelUp("third")))
    assert bench.num_preparations == 3


def test_a_model_that_cannot_be_loaded_says_why_and_harms_nobody(bench: Bench) -> None:
    bench.turn(load("bad", "bad"), load("broken", "broken"), load("good"))
    bench.hears(
        (0, ModelFailed("bad", "bad: no such directory")),
        (0, ModelFailed("broken", "it cannot be loaded; the server's log says why")),
        (0, ModelUp("good")),
    )
    assert list(bench.trade.models) == ["good"]


def test_a_model_can_go(bench: Bench) -> None:
    bench.turn(load("a"))
    bench.hears((0, ModelUp("a")))
    bench.turn(UnloadModel("a"), UnloadModel("never heard of"))
    assert bench.trade.models == {}
    assert not any(isinstance(message, StepEvents) for _, message in bench.sent)


def test_what_nobody_wants_any_more_never_joins_whether_it_waits_or_is_being_read(bench: Bench) -> None:
    bench.may_load.clear()
    bench.turn(load("under way"), load("waiting"), load("bad", "bad"), load("wanted"))
    bench.turn(UnloadModel("waiting"), UnloadModel("bad"), UnloadModel("under way"))
    bench.may_load.set()
    bench.hears((0, ModelUp("wanted")))
    assert list(bench.trade.models) == ["wanted"]
