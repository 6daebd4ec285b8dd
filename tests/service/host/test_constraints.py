"""Constraints compiled beside the steps: each sequence comes back once, with a constraint or with a reason."""

import math
import time
from collections.abc import Callable

import pytest

from model.constraint import Constraint, ConstraintFactory
from model.grammar import ConstraintSpec
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from service.bench.random_gpt2 import make_tokenizer
from service.host.constraints import Compiling, Ready
from service.host.messages import Generate


def factory_of(load: Callable[[], Tokenizer] = lambda: make_tokenizer(300)) -> ConstraintFactory:
    return ConstraintFactory(load, vocab_size=300, end_ids=[299])


def ask(uid: str, spec: ConstraintSpec, deadline_s: float = math.inf) -> Generate:
    return Generate(uid, 0, "m", [1], SamplingParams(), 0, deadline_s, math.inf, constraint=spec)


def wait_for(compiling: Compiling, count: int) -> dict[str, Ready]:
    ready: list[Ready] = []
    until_s = time.monotonic() + 60
    while len(ready) < count and time.monotonic() < until_s:
        ready += compiling.take_ready()
        time.sleep(0.001)
    return {each.message.uid: each for each in ready}


def test_each_sequence_comes_back_with_its_own_constraint_or_a_reason() -> None:
    compiling, factory = Compiling(), factory_of()
    compiling.begin(ask("good", ConstraintSpec("regex", "ab")), factory, "m")
    compiling.begin(ask("bad", ConstraintSpec("regex", "[")), factory, "m")
    compiling.begin(ask("again", ConstraintSpec("regex", "ab")), factory, "m")
    assert len(compiling) == 3
    ready = wait_for(compiling, 3)
    assert ready["bad"].outcome == "invalid_constraint"
    good, again = ready["good"].outcome, ready["again"].outcome
    assert isinstance(good, Constraint)
    assert isinstance(again, Constraint)
    assert good is not again
    assert len(compiling) == 0
    assert compiling.take_ready() == []


def test_a_cancelled_sequence_does_not_come_back() -> None:
    compiling = Compiling()
    compiling.begin(ask("gone", ConstraintSpec("regex", "a")), factory_of(), "m")
    compiling.cancel("gone")
    compiling.cancel("gone")  # once more does no harm
    assert len(compiling) == 0
    compiling.begin(ask("kept", ConstraintSpec("regex", "a")), factory_of(), "m")
    assert set(wait_for(compiling, 1)) == {"kept"}


def test_a_sequence_that_waits_past_its_deadline_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def slow() -> Tokenizer:
        time.sleep(0.3)
        return make_tokenizer(300)

    compiling = Compiling()
    compiling.begin(ask("slow", ConstraintSpec("regex", "a")), factory_of(slow), "m")
    compiling.begin(ask("late", ConstraintSpec("regex", "a"), deadline_s=time.monotonic()), factory_of(), "m")
    ready = wait_for(compiling, 2)
    assert ready["late"].outcome == "queue_timeout"
    assert isinstance(ready["slow"].outcome, Constraint)


def test_a_vocabulary_that_cannot_be_read_fails_its_sequence_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Tokenizer:
        raise OSError("gone")

    compiling = Compiling()
    compiling.begin(ask("unlucky", ConstraintSpec("regex", "a")), factory_of(broken), "m")
    compiling.begin(ask("fine", ConstraintSpec("regex", "a")), factory_of(), "m")
    ready = wait_for(compiling, 2)
    assert ready["unlucky"].outcome == "internal_error"
    assert isinstance(ready["fine"].outcome, Constraint)
