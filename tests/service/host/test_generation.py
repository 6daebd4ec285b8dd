"""The generation worker's trade around a real engine with a scripted runner."""

import math

import pytest
from prometheus_client import CollectorRegistry, multiprocess

from model.sampling_params import SamplingParams
from service import metrics
from service.engine.engine import Engine
from service.engine.request import Request
from service.host.generation import EngineModel, GenerationTrade
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Admitted, Cancel, Event, Failed, Generate, LoadModel, Token
from tests.service.engine.scripted import ScriptedRunner, generate_alone, make_engine


class ScriptedBus:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[Event]]] = []

    def send(self, message, consumer: int) -> None:
        self.sent.append((consumer, message.events))


class Bench:
    """One generation worker on a table: two models, an outbox, a bus."""

    def __init__(self) -> None:
        self.runners: dict[str, ScriptedRunner] = {}
        self.engines: dict[str, Engine] = {}
        self.trade = GenerationTrade()
        for name in ("one", "two"):
            self.engines[name], self.runners[name] = make_engine()
            self.trade.add(LoadModel(0, name, name, ""), EngineModel(self.engines[name]))
        self.outbox = Outbox()
        self.bus = ScriptedBus()

    def turn(self, *messages) -> None:
        for message in messages:
            self.trade.take(message, self.outbox)
        self.trade.work(self.outbox)
        self.outbox.flush(self.bus)

    def run(self) -> None:
        while self.trade.patience_s == 0:
            self.turn()

    def events_of(self, uid: str) -> list[Event]:
        return [event for _, events in self.bus.sent for event in events if event.uid == uid]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ask(uid: str, *, model: str = "one", consumer: int = 0, max_tokens: int = 5, prompt=(3, 5, 8)) -> Generate:
    return Generate(uid, consumer, model, list(prompt), SamplingParams(max_tokens=max_tokens), 0, math.inf, math.inf)


def sample(name: str, **labels: str) -> float:
    """Read one number off /metrics."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry.get_sample_value(name, {"engine": "0", **labels}) or 0.0


def load_seconds(served_id: str) -> float | None:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry.get_sample_value("groundup_model_load_seconds", {"model_name": served_id})


def test_a_sequence_is_admitted_then_told_token_by_token(bench: Bench) -> None:
    bench.turn(ask("a"))
    bench.run()
    admitted, *tokens = bench.events_of("a")
    assert isinstance(admitted, Admitted)
    expected = generate_alone(Request("a", [3, 5, 8], SamplingParams(max_tokens=5)))
    assert [token.token_id for token in tokens] == expected
    assert [token.finish_reason for token in tokens] == [None] * 4 + ["length"]


def test_a_step_is_one_message_for_each_http_process_whatever_the_batch(bench: Bench) -> None:
    bench.turn(ask("a"), ask("b"), ask("c", consumer=1))
    (first, first_events), (second, second_events) = bench.bus.sent
    assert (first, second) == (0, 1)
    assert {event.uid for event in first_events} == {"a", "b"}
    assert {event.uid for event in second_events} == {"c"}


def test_models_take_turns_while_both_have_work(bench: Bench) -> None:
    bench.turn(ask("a", model="one"), ask("b", model="two"))
    bench.turn()
    assert [type(event) for event in bench.events_of("a")] == [Admitted, Token, Token]
    assert [type(event) for event in bench.events_of("b")] == [Admitted, Token, Token]


def test_it_waits_for_messages_only_while_it_has_no_work(bench: Bench) -> None:
    assert bench.trade.patience_s == IDLE_TICK_S
    bench.trade.take(ask("a"), bench.outbox)
    assert bench.trade.patience_s == 0
    bench.run()
    assert bench.trade.patience_s == IDLE_TICK_S


def test_a_cancelled_sequence_leaves_at_once_and_says_nothing_more(bench: Bench) -> None:
    bench.turn(ask("a", max_tokens=50), ask("b", max_tokens=3))
    num_before = len(bench.events_of("a"))
    bench.turn(Cancel(["a", "never heard of"]))
    bench.run()
    assert len(bench.events_of("a")) == num_before
    assert bench.events_of("b")[-1].finish_reason == "length"
    assert not bench.engines["one"].has_work


def test_a_sequence_the_engine_will_not_take_fails_alone(bench: Bench) -> None:
    bench.turn(ask("no prompt", prompt=()), ask("no model", model="three"), ask("good", max_tokens=1))
    assert bench.events_of("no prompt") == [Failed("no prompt", "internal_error")]
    assert bench.events_of("no model") == [Failed("no model", "internal_error")]
    assert bench.events_of("good")[-1].finish_reason == "length"


def test_a_fault_in_a_step_fails_only_the_sequence_at_fault(bench: Bench) -> None:
    bench.runners["one"].poisoned.add("bad")
    bench.turn(ask("bad"), ask("good"))
    bench.run()
    assert bench.events_of("bad")[-1] == Failed("bad", "internal_error")
    assert bench.events_of("good")[-1].finish_reason == "length"


def test_gauges_show_the_batch_and_return_to_zero_after_a_cancel(bench: Bench) -> None:
    bench.turn(ask("a", max_tokens=50), ask("b", max_tokens=50))
    assert sample("vllm:num_requests_running", model_name="one") == 2
    assert sample("vllm:kv_cache_usage_perc", model_name="one") > 0
    bench.turn(Cancel(["a", "b"]))
    assert sample("vllm:num_requests_running", model_name="one") == 0
    assert sample("vllm:kv_cache_usage_perc", model_name="one") == 0


def test_a_cache_is_shown_while_an_engine_has_it(bench: Bench) -> None:
    pool = bench.engines["one"].scheduler.pool
    shape = {"block_size": str(pool.page_size), "num_gpu_blocks": str(pool.num_pages), "cache_dtype": "float32"}

    def is_shown() -> float:
        return sample("vllm:cache_config_info", model_name="one", **shape)

    metrics.MODEL_LOAD_SECONDS.labels("one").set(2.5)
    bench.trade.add(LoadModel(0, "one/1", "one", ""), EngineModel(make_engine()[0]))
    bench.trade.remove("one", bench.outbox)
    assert (is_shown(), load_seconds("one")) == (1, 2.5), "its successor looks alike"
    bench.trade.remove("one/1", bench.outbox)
    assert (is_shown(), load_seconds("one")) == (0, 0)


def test_tokens_are_counted_for_their_model(bench: Bench) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [sample(name, model_name="two") for name in names]
    bench.turn(ask("a", model="two", max_tokens=4))
    bench.run()
    assert [sample(name, model_name="two") for name in names] == [before[0] + 3, before[1] + 4]


def test_every_sequence_has_its_times_taken_once(bench: Bench) -> None:
    names = [f"vllm:request_{part}_time_seconds_count" for part in ("queue", "prefill", "decode", "inference")]
    before = [sample(name, model_name="one") for name in names]
    bench.turn(ask("a"), ask("b"), ask("gone"))
    bench.turn(Cancel(["gone"]))
    bench.run()
    expected = [before[0] + 3, before[1] + 3, before[2] + 2, before[3] + 2]
    assert [sample(name, model_name="one") for name in names] == expected
