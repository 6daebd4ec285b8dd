"""Who runs when: budget, order, chunks, preemption and deadlines, without a model."""

import random
from dataclasses import replace

import pytest

from model.sampling_params import SamplingParams
from service.engine.pages import PagePool
from service.engine.request import Admission, Failure, NewToken, Pooled, Request
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


def test_a_prefix_in_the_cache_is_not_computed_again_and_admission_says_so():
    engine, _ = make_engine(page_size=8)
    first, second = (make_request("aa", num_prompt=21), make_request("bb", num_prompt=21))
    second.prompt_ids = [*first.prompt_ids[:18], 1, 2, 3]
    engine.add(first)
    run_to_end(engine)
    engine.add(second)
    assert engine.step()[0] == Admission("bb", 0.0, cached_tokens=16)
    assert engine.last_step.num_tokens == 5
    run_to_end(engine)
    assert second.output_ids == generate_alone(second)


def test_the_newest_token_of_a_cached_prompt_is_computed_all_the_same():
    engine, _ = make_engine(page_size=8)
    for uid in ("a", "a again"):
        request = make_request("a", num_prompt=16)
        request.uid = uid
        engine.add(request)
        outputs = run_to_end(engine)
    assert outputs[0] == Admission("a again", 0.0, cached_tokens=8)
    assert tokens_of(outputs, "a again") == generate_alone(request)


def test_choices_of_one_prompt_admitted_together_share_what_the_first_computes_in_that_step():
    engine, _ = make_engine(page_size=8)
    for uid in "abc":
        request = make_request("same", num_prompt=20)
        request.uid = uid
        engine.add(request)
    outputs = engine.step()
    assert [o.cached_tokens for o in outputs if isinstance(o, Admission)] == [0, 16, 16]
    assert engine.last_step.num_tokens == 20 + 4 + 4
    assert engine.scheduler.pool.num_free == 64 - 3 - 1 - 1
    check(engine)
    outputs += run_to_end(engine)
    assert all(tokens_of(outputs, uid) == generate_alone(request) for uid in "abc")


def test_a_follower_waits_for_the_prefix_that_a_leader_is_computing():
    engine, _ = make_engine(page_size=8, max_num_batched_tokens=16, max_num_seqs=4)
    for uid in ("leader", "follower"):
        request = make_request("same", num_prompt=40)
        request.uid = uid
        engine.add(request)
    computed = 0
    while not request.output_ids:
        engine.step()
        check(engine)
        computed += engine.last_step.num_tokens
    assert computed <= 40 + 8 + 3


def test_a_leader_that_is_aborted_half_way_leaves_what_it_has_computed():
    engine, _ = make_engine(page_size=8, max_num_batched_tokens=16, max_num_seqs=4)
    for uid in ("leader", "follower"):
        request = make_request("same", num_prompt=40)
        request.uid = uid
        engine.add(request)
    engine.step()
    engine.abort("leader")
    assert engine.step()[0] == Admission("follower", 0.0, cached_tokens=16)
    run_to_end(engine)
    assert request.output_ids == generate_alone(request)


@pytest.mark.parametrize("kind", ["salt", "adapter"])
def test_salts_and_adapters_keep_prefixes_apart(kind):
    engine, _ = make_engine(page_size=8)
    requests = [make_request("same", num_prompt=20) for _ in range(3)]
    for i, request in enumerate(requests):
        request.uid = str(i)
        if kind == "salt":
            request.cache_salt = ["x", "y", "x"][i]
        else:
            request.adapter = ["x", None, "x"][i]
        engine.add(request)
    outputs = run_to_end(engine)
    assert [o.cached_tokens for o in outputs if isinstance(o, Admission)] == [0, 0, 16]


@pytest.mark.parametrize("kind", ["prompt_logprobs", "mean"])
def test_who_must_see_the_whole_prompt_computes_it_and_leaves_it_to_others(kind):
    engine, _ = make_engine(page_size=8)
    requests = [make_request("same", num_prompt=20) for _ in range(3)]
    for i, request in enumerate(requests):
        request.uid = str(i)
        engine.add(request)
    if kind == "mean":
        requests[0].pooling = requests[1].pooling = "mean"
    else:
        requests[0].params = requests[1].params = replace(requests[0].params, prompt_logprobs=0)
    outputs = run_to_end(engine)
    assert [o.cached_tokens for o in outputs if isinstance(o, Admission)] == [0, 0, 16]
    if kind == "mean":
        assert [o.values for o in outputs if isinstance(o, Pooled)] == [[sum(requests[0].prompt_ids) / 20]] * 2


def test_prompts_take_no_more_than_their_share_beside_streams_and_the_whole_budget_without():
    engine, _ = make_engine(max_num_batched_tokens=32, prefill_chunk_tokens=6)
    engine.add(make_request("stream", num_prompt=30, max_tokens=30))
    engine.step()
    assert engine.last_step.num_tokens == 30
    engine.add(make_request("long", num_prompt=40))
    sizes = []
    while engine.num_running < 2 or not engine.scheduler.running[1].output_ids:
        engine.step()
        sizes.append([row.length for row in engine.last_step.rows])
    assert sizes == [[1, 6]] * 6 + [[1, 4]]


def test_many_newcomers_do_not_wait_for_a_few_streams():
    engine, _ = make_engine(max_num_batched_tokens=32, prefill_chunk_tokens=6)
    for i in range(2):
        engine.add(make_request(f"stream {i}", num_prompt=10, max_tokens=30))
    engine.step()
    for i in range(7):
        engine.add(make_request(f"newcomer {i}", num_prompt=8))
    sizes = []
    while engine.num_waiting:
        engine.step()
        sizes.append([row.length for row in engine.last_step.rows])
    # Seven newcomers for two streams: three times the share. Then five, one of them begun, for four: once.
    assert sizes[:2] == [[1, 1, 8, 8, 2], [1, 1, 1, 1, 6]]


def test_newcomers_that_memory_has_no_room_for_do_not_count():
    engine, _ = make_engine(num_pages=12, page_size=8, max_num_batched_tokens=32, prefill_chunk_tokens=6)
    for i in range(2):
        engine.add(make_request(f"stream {i}", num_prompt=20, max_tokens=12))
    for _ in range(4):
        engine.step()
    for i in range(9):
        engine.add(make_request(f"newcomer {i}", num_prompt=24))
    engine.step()
    assert [row.length for row in engine.last_step.rows] == [1, 1, 6]


def test_a_preempted_sequence_finds_again_what_nobody_needed_meanwhile():
    engine, _ = make_engine(num_pages=8, page_size=8)
    for uid in ("old", "new"):
        engine.add(make_request(uid, num_prompt=28, max_tokens=30))
    while not engine.num_preemptions:
        engine.step()
    engine.abort("old")
    engine.step()
    assert engine.last_step.rows[0].start >= 16
    run_to_end(engine)


def make_related_request(rng, uid):
    """Draw a request that often begins like others, may ask for anything, and may have little time."""
    beginning = [rng.randrange(3)] * rng.choice([0, 0, 9, 30])
    num_own = rng.randint(1, BLOCK_SIZE - len(beginning) - 1)
    prompt_ids = [*beginning, *(rng.randrange(2) for _ in range(num_own))]
    request = Request(uid, prompt_ids, SamplingParams(max_tokens=rng.randint(1, BLOCK_SIZE - len(prompt_ids))))
    request.cache_salt = rng.choice(["", "", "salt"])
    request.adapter = rng.choice([None, None, "adapter"])
    kind = rng.random()
    if kind < 0.1:
        request.params = replace(request.params, prompt_logprobs=0)
    elif kind < 0.2:
        request.pooling = rng.choice(["mean", "last"])
    return request


@pytest.mark.parametrize("seed", range(8))
def test_a_random_load_on_a_pool_too_small_for_it_keeps_every_invariant_and_every_answer(seed):
    """10,000 steps in all."""
    rng = random.Random(seed)
    page_size = [1, 4, 16, BLOCK_SIZE][seed % 4]
    num_pages = -(-BLOCK_SIZE // page_size) + rng.randint(0, 4)
    now = 0.0
    engine, _ = make_engine(
        num_pages=num_pages,
        page_size=page_size,
        max_num_batched_tokens=rng.randint(8, 40),
        prefill_chunk_tokens=rng.choice([None, 5]),
        clock=lambda: now,
    )
    live, outputs = {}, {}
    arrived, admitted = [], []
    num_cached = num_failed = 0
    for step in range(1250):
        now = float(step)
        if rng.random() < 0.35 and engine.num_waiting < 20:
            request = make_related_request(rng, f"{step}")
            request.deadline_s = now + rng.choice([30, 10_000])
            engine.add(request)
            live[request.uid] = request
            arrived.append(request.uid)
        if live and rng.random() < 0.05:
            gone = rng.choice(list(live))
            engine.abort(gone)
            del live[gone]
        decoding = [request for request in engine.scheduler.running if request.num_uncached == 1]
        before = {request.uid: len(request.output_ids) for request in decoding}
        for output in engine.step():
            if isinstance(output, Admission):
                admitted.append(output.uid)
                num_cached += output.cached_tokens
                continue
            if isinstance(output, NewToken):
                outputs.setdefault(output.uid, []).append(output.token_id)
                if output.finish_reason is None:
                    continue
                assert outputs[output.uid] == generate_alone(live[output.uid])
            elif isinstance(output, Pooled):
                ids = live[output.uid].prompt_ids
                assert output.values == [sum(ids) / len(ids) if live[output.uid].pooling == "mean" else ids[-1]]
            else:
                assert (output.code, live[output.uid].deadline_s <= now) == ("timeout", True)
                num_failed += 1
            del live[output.uid]
        check(engine)
        for request in decoding:
            waits = request in engine.scheduler.waiting or request.uid not in live
            assert waits or len(request.output_ids) == before[request.uid] + 1, "a running stream was left out"
        was_admitted = set(admitted)
        assert admitted == [uid for uid in arrived if uid in was_admitted], "a later request overtook an earlier one"
        newest = max((arrived.index(uid) for uid in admitted), default=-1)
        earlier = [uid for uid in arrived[:newest] if uid in live and uid not in was_admitted]
        assert not earlier, "a later request overtook an earlier one that waits"
    run_to_end(engine)
    assert engine.cache_usage == 0
    assert engine.scheduler.pool.num_free == num_pages
    assert len(outputs) > 50
    assert num_failed
    assert page_size == BLOCK_SIZE or engine.num_preemptions
    assert page_size > 4 or num_cached
