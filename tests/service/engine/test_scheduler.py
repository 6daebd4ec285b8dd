"""Who runs when: budget, order, chunks, preemption and deadlines, without a model."""

import random

import pytest

from service.engine.pages import PagePool
from service.engine.request import Admission, Failure, NewToken
from service.engine.scheduler import Scheduler
from tests.service.engine.scripted import (
    BLOCK_SIZE,
    check,
    generate_alone,
    make_engine,
    make_request,
    run_to_end,
    tokens_of,
)


def lengths(engine):
    return [(row.request.uid, row.length) for row in engine.last_step.rows]


def test_a_lone_request_is_admitted_then_gives_its_tokens_then_is_gone():
    engine, _ = make_engine()
    request = make_request("a", max_tokens=3)
    engine.add(request)
    outputs = run_to_end(engine)
    assert outputs[0] == Admission("a", 0.0)
    assert tokens_of(outputs, "a") == generate_alone(request)
    assert [o.finish_reason for o in outputs[1:]] == [None, None, "length"]
    assert engine.cache_usage == 0


def test_a_new_request_joins_those_that_are_decoding():
    engine, _ = make_engine()
    engine.add(make_request("a", num_prompt=5, max_tokens=9))
    engine.step()
    engine.add(make_request("b", num_prompt=6))
    engine.step()
    assert lengths(engine) == [("a", 1), ("b", 6)]
    engine.step()
    assert lengths(engine) == [("a", 1), ("b", 1)]


def test_a_freed_slot_is_filled_in_the_next_step():
    engine, _ = make_engine(max_num_seqs=2)
    for uid, max_tokens in (("a", 2), ("b", 5), ("c", 5)):
        engine.add(make_request(uid, max_tokens=max_tokens))
    engine.step()
    engine.step()  # a has both of its tokens now
    assert engine.num_running == 1
    engine.step()
    assert lengths(engine) == [("b", 1), ("c", 4)]


def test_an_aborted_slot_is_filled_in_the_next_step():
    engine, _ = make_engine(max_num_seqs=1)
    engine.add(make_request("a", max_tokens=50))
    engine.add(make_request("b"))
    engine.step()
    engine.abort("a")
    engine.step()
    assert lengths(engine) == [("b", 4)]


def test_a_prompt_longer_than_the_budget_is_cut_into_chunks_and_decoding_goes_on_beside_it():
    engine, _ = make_engine(max_num_batched_tokens=16)
    engine.add(make_request("a", num_prompt=3, max_tokens=20))
    engine.step()
    long = make_request("b", num_prompt=40, max_tokens=2)
    engine.add(long)
    seen = []
    while long.num_uncached > 1:
        engine.step()
        seen.append(lengths(engine))
    assert seen == [[("a", 1), ("b", 15)], [("a", 1), ("b", 15)], [("a", 1), ("b", 10)]]
    assert tokens_of(run_to_end(engine), "b") == generate_alone(long)[1:]


def test_a_chunked_prompt_gives_no_token_before_its_end():
    engine, _ = make_engine(max_num_batched_tokens=16)
    engine.add(make_request("a", num_prompt=40, max_tokens=1))
    kinds = [[type(output) for output in engine.step()] for _ in range(3)]
    assert kinds == [[Admission], [], [NewToken]]


def test_a_small_request_never_overtakes_a_large_one():
    engine, _ = make_engine(num_pages=8, page_size=8)
    engine.add(make_request("a", num_prompt=20, max_tokens=20))
    engine.step()
    engine.add(make_request("large", num_prompt=60, max_tokens=2))
    engine.add(make_request("small", num_prompt=1, max_tokens=1))
    outputs = run_to_end(engine)
    assert [o.uid for o in outputs if isinstance(o, Admission)] == ["large", "small"]


def test_without_free_pages_the_newest_sequence_is_preempted_and_repeats_nothing():
    engine, _ = make_engine(num_pages=8, page_size=8)
    requests = [make_request(uid, num_prompt=28, max_tokens=30) for uid in ("old", "new")]
    for request in requests:
        engine.add(request)
    outputs = []
    while not engine.num_preemptions:
        outputs += engine.step()
        check(engine)
    assert [request.uid for request in engine.scheduler.waiting] == ["new"]
    assert requests[1].output_ids
    outputs += run_to_end(engine)
    for request in requests:
        assert tokens_of(outputs, request.uid) == generate_alone(request)
    assert [o.uid for o in outputs if isinstance(o, Admission)] == ["old", "new"]


def test_several_preempted_sequences_come_back_in_their_order():
    engine, _ = make_engine(num_pages=9, page_size=8)
    for uid in "abc":
        engine.add(make_request(uid, num_prompt=23, max_tokens=40))
    while engine.num_preemptions < 2:
        engine.step()
        check(engine)
    assert [request.uid for request in engine.scheduler.waiting] == ["b", "c"]


@pytest.mark.parametrize("phase", ["queued", "prefill", "decode", "preempted"])
def test_abort_returns_every_page_in_every_phase(phase):
    engine, _ = make_engine(num_pages=8, page_size=8, max_num_batched_tokens=16, max_num_seqs=2)
    engine.add(make_request("first", num_prompt=12, max_tokens=50))
    victim = make_request("victim", num_prompt=20, max_tokens=40)
    engine.add(victim)
    if phase == "prefill":
        engine.step()
        assert 0 < victim.num_cached < len(victim.prompt_ids)
    elif phase == "decode":
        while not victim.output_ids:
            engine.step()
    elif phase == "preempted":
        while not engine.num_preemptions:
            engine.step()
        assert victim in engine.scheduler.waiting
    engine.abort("victim")
    check(engine)
    assert engine.scheduler.pool.owned_by("victim") == []
    engine.abort("first")
    check(engine)
    assert engine.cache_usage == 0
    assert not engine.has_work
    assert engine.step() == []


def test_queue_and_overall_deadlines_end_requests_with_their_own_codes():
    now = 0.0
    engine, _ = make_engine(max_num_seqs=1, clock=lambda: now)
    deadlines = {"running": (1.0, 5.0), "impatient": (2.0, 9.0), "late": (9.0, 3.0), "patient": (9.0, 9.0)}
    for uid, (queue_deadline_s, deadline_s) in deadlines.items():
        request = make_request(uid, max_tokens=50)
        request.queue_deadline_s, request.deadline_s = queue_deadline_s, deadline_s
        engine.add(request)
    failures = []
    for now in (0.0, 1.5, 2.5, 3.5, 5.5):  # noqa: B007 - the engine's clock reads it
        failures.append([o for o in engine.step() if isinstance(o, Failure)])
        check(engine)
    assert failures == [
        [],
        [],
        [Failure("impatient", "queue_timeout")],
        [Failure("late", "timeout")],
        [Failure("running", "timeout")],
    ]
    assert lengths(engine) == [("patient", 4)]


def test_a_request_that_runs_out_of_time_in_the_queue_is_one_that_waited_too_long():
    now = 0.0
    engine, _ = make_engine(max_num_seqs=1, clock=lambda: now)
    for uid in ("running", "waiting"):
        request = make_request(uid, max_tokens=50)
        request.queue_deadline_s = request.deadline_s = 1.0
        engine.add(request)
    engine.step()
    now = 1.5
    assert engine.step() == [Failure("waiting", "queue_timeout"), Failure("running", "timeout")]


def test_a_preempted_request_is_not_in_the_queue_as_far_as_its_queue_deadline_goes():
    now = 0.0
    engine, _ = make_engine(num_pages=8, page_size=8, clock=lambda: now)
    for uid in ("old", "new"):
        request = make_request(uid, num_prompt=28, max_tokens=30)
        request.queue_deadline_s = 1.0
        engine.add(request)
    while not engine.num_preemptions:
        engine.step()
    now = 2.0
    assert not [o for o in run_to_end(engine) if isinstance(o, Failure)]


def test_admission_reports_the_time_in_the_queue():
    now = 10.0
    engine, _ = make_engine(clock=lambda: now)
    request = make_request("a")
    request.arrival_s = 7.5
    engine.add(request)
    assert engine.step()[0] == Admission("a", 2.5)


def test_limits_that_could_starve_a_sequence_are_refused():
    pool = PagePool(num_pages=3, page_size=16)
    with pytest.raises(ValueError, match=r"kv_cache_tokens: 48 cannot hold .* at least 64"):
        Scheduler(pool, block_size=64, max_num_seqs=1, max_num_batched_tokens=64)
    pool = PagePool(num_pages=4, page_size=16)
    with pytest.raises(ValueError, match=r"max_num_batched_tokens \(7\) must be at least max_num_seqs \(8\)"):
        Scheduler(pool, block_size=64, max_num_seqs=8, max_num_batched_tokens=7)


@pytest.mark.parametrize("num_prompt", [0, BLOCK_SIZE + 1])
def test_a_prompt_that_can_never_run_is_refused(num_prompt):
    engine, _ = make_engine()
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        engine.add(make_request("a", num_prompt=num_prompt))
    assert not engine.has_work


@pytest.mark.parametrize("seed", range(4))
def test_a_random_load_on_a_pool_too_small_for_it_keeps_every_invariant_and_every_answer(seed):
    rng = random.Random(seed)
    page_size = rng.choice([1, 4, 16, BLOCK_SIZE])
    num_pages = -(-BLOCK_SIZE // page_size) + rng.randint(0, 4)
    engine, _ = make_engine(num_pages=num_pages, page_size=page_size, max_num_batched_tokens=rng.randint(8, 40))
    live = {}
    outputs: dict[str, list[int]] = {}
    arrived, admitted = [], []
    for step in range(2000):
        if rng.random() < 0.3 and engine.num_waiting < 20:
            num_prompt = rng.randint(1, BLOCK_SIZE - 1)
            request = make_request(f"{step}", num_prompt, rng.randint(1, BLOCK_SIZE - num_prompt))
            engine.add(request)
            live[request.uid] = request
            arrived.append(request.uid)
        if live and rng.random() < 0.05:
            uid = rng.choice(list(live))
            engine.abort(uid)
            del live[uid]
            if uid not in admitted:
                arrived.remove(uid)
        for output in engine.step():
            if isinstance(output, Admission):
                admitted.append(output.uid)
            else:
                outputs.setdefault(output.uid, []).append(output.token_id)
                if output.finish_reason:
                    request = live.pop(output.uid)
                    assert outputs[output.uid] == generate_alone(request)
        check(engine)
        assert admitted == arrived[: len(admitted)], "a later request overtook an earlier one"
    run_to_end(engine)
    assert engine.cache_usage == 0
    assert len(outputs) > 50
    assert page_size == BLOCK_SIZE or engine.num_preemptions > 0
