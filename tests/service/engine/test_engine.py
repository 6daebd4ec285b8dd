"""The engine around a scripted runner: events, endings and faults."""

import logging
from dataclasses import replace

import pytest

from model.sampling_params import SamplingParams
from service.engine.request import Admission, Failure, NewToken, Request
from tests.service.engine.scripted import (
    BLOCK_SIZE,
    check,
    generate_alone,
    make_engine,
    make_request,
    run_to_end,
    score,
    tokens_of,
)


def last_token(engine):
    return next(output for output in reversed(run_to_end(engine)) if isinstance(output, NewToken))


def test_an_end_token_stops_the_sequence_and_is_its_last_output():
    engine, _ = make_engine()
    request = make_request("a", max_tokens=30)
    outputs = generate_alone(request)
    request.end_ids = (outputs[5],)
    engine.add(request)
    last = last_token(engine)
    assert (last.token_id, last.finish_reason, last.stop_token_id) == (outputs[5], "stop", None)
    assert request.output_ids == outputs[: outputs.index(outputs[5]) + 1]


def test_a_stop_token_is_named_even_where_end_tokens_are_ignored():
    engine, _ = make_engine()
    request = make_request("a", max_tokens=30)
    outputs = generate_alone(request)
    request.end_ids = (outputs[1],)
    request.params = replace(request.params, ignore_eos=True, stop_token_ids=(outputs[5],))
    engine.add(request)
    last = last_token(engine)
    assert (last.finish_reason, last.stop_token_id) == ("stop", outputs[5])


def test_the_end_of_the_context_ends_a_sequence_as_length():
    engine, _ = make_engine()
    request = make_request("a", num_prompt=BLOCK_SIZE - 2, max_tokens=30)
    engine.add(request)
    outputs = run_to_end(engine)
    assert len(tokens_of(outputs, "a")) == 2
    assert outputs[-1].finish_reason == "length"


@pytest.mark.parametrize("num_prompt", [1, 20, BLOCK_SIZE])
def test_max_tokens_zero_scores_the_prompt_and_generates_nothing(num_prompt):
    engine, _ = make_engine(max_num_batched_tokens=8)
    request = make_request("a", num_prompt=num_prompt, max_tokens=0)
    request.params = replace(request.params, prompt_logprobs=0)
    engine.add(request)
    _, event = run_to_end(engine)
    expected = [None, *(score(request.prompt_ids, place) for place in range(num_prompt - 1))]
    assert event == NewToken("a", None, prompt_logprobs=expected, finish_reason="length")


def test_prompt_scores_come_once_and_whole_through_chunks_and_preemption():
    engine, _ = make_engine(num_pages=8, page_size=8, max_num_batched_tokens=16)
    requests = [make_request(uid, num_prompt=28, max_tokens=30) for uid in ("old", "new")]
    for request in requests:
        request.params = replace(request.params, prompt_logprobs=0)
        engine.add(request)
    outputs = run_to_end(engine)
    assert engine.num_preemptions
    for request in requests:
        scores = [o.prompt_logprobs for o in outputs if isinstance(o, NewToken) and o.uid == request.uid]
        assert scores[0] == [None, *(score(request.prompt_ids, place) for place in range(27))]
        assert not any(scores[1:])


def test_a_request_at_fault_fails_alone_and_its_batch_mates_go_on(caplog):
    engine, runner = make_engine()
    requests = {uid: make_request(uid, max_tokens=6) for uid in ("good", "bad", "fine")}
    for request in requests.values():
        engine.add(request)
    outputs = engine.step()
    runner.poisoned.add("bad")
    with caplog.at_level(logging.ERROR):
        outputs += run_to_end(engine)
    assert [o for o in outputs if isinstance(o, Failure)] == [Failure("bad", "internal_error")]
    for uid in ("good", "fine"):
        assert tokens_of(outputs, uid) == generate_alone(requests[uid])
    assert engine.cache_usage == 0
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("num_followers", [1, 3])
def test_who_shares_what_a_failed_request_was_to_compute_starts_again(num_followers, caplog):
    engine, runner = make_engine(page_size=8)
    uids = ["leader", *(f"follower {i}" for i in range(num_followers)), "stranger"]
    requests = {uid: make_request("stranger" if uid == "stranger" else "same", num_prompt=20) for uid in uids}
    for uid, request in requests.items():
        request.uid = uid
        engine.add(request)
    runner.poisoned.add("leader")
    with caplog.at_level(logging.CRITICAL):
        outputs = engine.step()
    check(engine)
    assert [o for o in outputs if isinstance(o, Failure)] == [Failure("leader", "internal_error")]
    assert [request.uid for request in engine.scheduler.waiting] == uids[1:]
    outputs += run_to_end(engine)
    for uid in uids[1:]:
        assert tokens_of(outputs, uid) == generate_alone(requests[uid])
    assert [o.uid for o in outputs if isinstance(o, Admission)] == uids


def test_a_broken_runner_fails_all_that_run_and_the_engine_serves_the_next(caplog):
    engine, runner = make_engine(max_num_seqs=2)
    for uid in ("a", "b", "waiting"):
        engine.add(make_request(uid))
    engine.step()
    runner.is_broken = True
    with caplog.at_level(logging.CRITICAL):
        outputs = engine.step()
    check(engine)
    assert outputs == [Failure("a", "internal_error"), Failure("b", "internal_error")]
    assert engine.cache_usage == 0
    runner.is_broken = False
    assert len(tokens_of(run_to_end(engine), "waiting")) == 4


def test_a_uid_is_taken_once_and_aborting_a_stranger_is_fine():
    engine, _ = make_engine()
    engine.add(make_request("a"))
    with pytest.raises(ValueError, match="uid a is already"):
        engine.add(make_request("a"))
    engine.abort("never seen")
    assert engine.num_waiting == 1


def test_the_last_step_tells_batch_size_and_tokens():
    engine, _ = make_engine()
    engine.add(make_request("a", num_prompt=5))
    engine.add(make_request("b", num_prompt=7))
    engine.step()
    assert (len(engine.last_step.rows), engine.last_step.num_tokens) == (2, 12)
    assert (engine.num_running, engine.num_waiting) == (2, 0)
    assert engine.cache_usage == 2 / 64


def test_token_ids_are_one_sequence_across_prompt_and_output():
    request = Request("a", [10, 11, 12], SamplingParams())
    request.output_ids += [20, 21]
    assert request.token_ids(0, 5) == [10, 11, 12, 20, 21]
    assert request.token_ids(1, 4) == [11, 12, 20]
    assert request.token_ids(4, 5) == [21]
