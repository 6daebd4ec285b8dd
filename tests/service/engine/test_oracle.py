"""The engine with a real model against `generate`, one sequence at a time: the same tokens, one by one."""

import random

import pytest
import torch

from model.config import GPTConfig
from model.generate import generate
from model.gpt import GPT
from model.sampling import top_logprobs
from model.sampling_params import SamplingParams
from service.engine.engine import Engine
from service.engine.pages import PagePool
from service.engine.request import Admission, NewToken, Request
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler
from tests.service.engine.scripted import check, run_to_end, tokens_of
from tests.tiny import KINDS, make_config, make_gpt

FAMILIES = ["gpt2", "llama"]
END_IDS = (3, 5)

ROOMY = {"num_pages": 32, "page_size": 128, "max_num_seqs": 32, "max_num_batched_tokens": 4096}
SMALL_PAGES = {"num_pages": 400, "page_size": 5, "max_num_seqs": 32, "max_num_batched_tokens": 4096}
SMALL_POOL = {"num_pages": 40, "page_size": 16, "max_num_seqs": 32, "max_num_batched_tokens": 4096}
SMALL_BUDGET = {"num_pages": 400, "page_size": 16, "max_num_seqs": 8, "max_num_batched_tokens": 13}
ALL_SMALL = {"num_pages": 43, "page_size": 3, "max_num_seqs": 16, "max_num_batched_tokens": 17}
LIMITS = {
    "roomy": ROOMY,
    "small-pages": SMALL_PAGES,
    "small-pool": SMALL_POOL,
    "small-budget": SMALL_BUDGET,
    "all-small": ALL_SMALL,
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> GPT:
    return make_gpt(make_config(request.param))


def make_engine(
    model: GPT,
    *,
    num_pages: int,
    page_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    prefill_chunk_tokens: int | None = None,
) -> Engine:
    scheduler = Scheduler(
        PagePool(num_pages, page_size),
        block_size=model.config.block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
    )
    return Engine(scheduler, GPTRunner(model, num_pages=num_pages, page_size=page_size))


def random_params(rng: random.Random, vocab_size: int) -> SamplingParams:
    """Any mixture of settings, about half of them off."""

    def maybe(value: object, otherwise: object) -> object:
        return value if rng.random() < 0.5 else otherwise

    max_tokens = rng.randint(1, 60)
    settings = {
        "max_tokens": max_tokens,
        "min_tokens": maybe(rng.randint(0, max_tokens), 0),
        "temperature": maybe(rng.uniform(0.3, 1.5), 0.0),
        "top_p": maybe(rng.uniform(0.0, 1.0), 1.0),
        "top_k": maybe(rng.randint(1, 50), 0),
        "min_p": maybe(rng.uniform(0.0, 0.2), 0.0),
        "repetition_penalty": maybe(rng.uniform(0.5, 2.0), 1.0),
        "presence_penalty": maybe(rng.uniform(-2, 2), 0.0),
        "frequency_penalty": maybe(rng.uniform(-2, 2), 0.0),
        "logit_bias": maybe(tuple((rng.randrange(vocab_size), rng.choice([-100.0, -3.0, 4.0])) for _ in range(5)), ()),
        "seed": rng.getrandbits(63),
        "stop_token_ids": maybe(tuple(rng.sample(range(vocab_size), 6)), ()),
        "ignore_eos": rng.random() < 0.5,
        "logprobs": maybe(rng.randint(0, 5), None),
        "prompt_logprobs": maybe(rng.randint(0, 5), None),
    }
    return SamplingParams(**settings)


def random_requests(rng: random.Random, config: GPTConfig, count: int) -> list[Request]:
    return [
        Request(
            uid=f"r{i}",
            prompt_ids=[rng.randrange(config.vocab_size) for _ in range(rng.choice([1, 2, 7, 30, 90, 127]))],
            params=random_params(rng, config.vocab_size),
            choice=rng.randrange(3),
            end_ids=END_IDS,
        )
        for i in range(count)
    ]


def assert_equals_generate(model: GPT, request: Request, events: list[NewToken]) -> None:
    alone = generate(model, request.prompt_ids, request.params, choice=request.choice, eos_token_ids=END_IDS)
    assert [event.token_id for event in events] == alone.output_ids
    last = events[-1]
    assert (last.finish_reason, last.stop_token_id) == (alone.finish_reason, alone.stop_token_id)
    assert not any(event.finish_reason for event in events[:-1])


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_a_batch_of_random_requests_gives_what_each_gives_alone(model, limits):
    rng = random.Random(str(limits))
    engine = make_engine(model, **limits)
    requests = random_requests(rng, model.config, 32)
    events: dict[str, list[NewToken]] = {request.uid: [] for request in requests}
    aborted = set()
    arriving = list(requests)
    while arriving or engine.has_work:
        for _ in range(min(len(arriving), rng.randint(0, 12))):
            engine.add(arriving.pop(0))
        for output in engine.step():
            if isinstance(output, NewToken):
                assert output.uid not in aborted
                events[output.uid].append(output)
        check(engine)
        if rng.random() < 0.05:
            aborted.add(uid := rng.choice(requests).uid)
            engine.abort(uid)
            arriving = [request for request in arriving if request.uid != uid]
    assert engine.cache_usage == 0
    finished = [request for request in requests if request.uid not in aborted]
    assert len(finished) >= 16
    for request in finished:
        assert_equals_generate(model, request, events[request.uid])
    if limits in (SMALL_POOL, ALL_SMALL):
        assert engine.num_preemptions > 0


@pytest.mark.parametrize("limits", ["roomy", "tight"])
def test_64_at_once_with_common_beginnings_say_what_each_says_alone(model, limits):
    """Greedy and seeded, with prefix reuse, chunks, preemption and late arrivals."""
    rng = random.Random(f"64 {limits}")
    num_pages, budget = (800, 512) if limits == "roomy" else (70, 70)
    engine = make_engine(
        model,
        num_pages=num_pages,
        page_size=4,
        max_num_seqs=64,
        max_num_batched_tokens=budget,
        prefill_chunk_tokens=23,
    )
    beginnings = [[rng.randrange(model.config.vocab_size) for _ in range(length)] for length in (0, 33, 64)]
    requests = []
    for i in range(64):
        own = [rng.randrange(model.config.vocab_size) for _ in range(rng.randint(1, 20))]
        params = SamplingParams(max_tokens=rng.randint(1, 24), temperature=rng.choice([0.0, 1.0]), seed=i)
        requests.append(Request(f"r{i}", [*rng.choice(beginnings), *own], params, choice=i % 3, end_ids=END_IDS))
    outputs = []
    arriving = list(requests)
    while arriving or engine.has_work:
        for _ in range(min(len(arriving), rng.randint(0, 30))):
            engine.add(arriving.pop(0))
        outputs += engine.step()
        check(engine)
    for request in requests:
        assert_equals_generate(model, request, [o for o in outputs if isinstance(o, NewToken) and o.uid == request.uid])
    assert sum(o.cached_tokens for o in outputs if isinstance(o, Admission)) > 500
    assert bool(engine.num_preemptions) == (limits == "tight")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FAMILIES])
def test_every_kind_of_model_gives_in_a_batch_what_it_gives_alone(kind):
    model = make_gpt(make_config(kind))
    engine = make_engine(model, **ALL_SMALL)
    requests = random_requests(random.Random(kind), model.config, 6)
    for request in requests:
        engine.add(request)
    outputs = [output for output in run_to_end(engine) if isinstance(output, NewToken)]
    for request in requests:
        assert_equals_generate(model, request, [output for output in outputs if output.uid == request.uid])


def test_log_probabilities_are_those_of_the_raw_logits_in_every_schedule(model):
    rng = random.Random(0)
    params = SamplingParams(
        max_tokens=20, temperature=0.8, top_k=5, logit_bias=((7, 5.0),), logprobs=3, prompt_logprobs=2
    )
    prompts = [[rng.randrange(384) for _ in range(length)] for length in (1, 40, 90)]
    for limits in LIMITS.values():
        engine = make_engine(model, **limits)
        for i, prompt_ids in enumerate(prompts):
            engine.add(Request(f"r{i}", prompt_ids, params))
        outputs = run_to_end(engine)
        for i, prompt_ids in enumerate(prompts):
            events = [o for o in outputs if isinstance(o, NewToken) and o.uid == f"r{i}"]
            tokens = [*prompt_ids, *tokens_of(outputs, f"r{i}")]
            scores = [*events[0].prompt_logprobs, *(event.logprob for event in events)]
            assert scores[0] is None
            assert not any(event.prompt_logprobs for event in events[1:])
            with torch.inference_mode():
                logits = model.logits(model(torch.tensor([tokens[:-1]]))[0])
            chosen, _, best = top_logprobs(logits, torch.tensor(tokens[1:]), 3)
            got = torch.tensor([score.logprob for score in scores[1:]])
            torch.testing.assert_close(got, chosen, atol=1e-4, rtol=1e-4)
            tops = [value for score in scores[1 + len(prompt_ids) - 1 :] for _, value in score.top]
            torch.testing.assert_close(torch.tensor(tops), best[len(prompt_ids) - 1 :].flatten(), atol=1e-4, rtol=1e-4)
            assert all(len(score.top) == 2 for score in scores[1 : len(prompt_ids)])


def test_a_token_among_the_top_has_the_same_bits_in_both_places(model):
    engine = make_engine(model, **SMALL_BUDGET)
    params = SamplingParams(max_tokens=30, temperature=1.0, logprobs=384, prompt_logprobs=384)
    engine.add(Request("a", list(range(50, 90)), params))
    outputs = run_to_end(engine)
    events = [o for o in outputs if isinstance(o, NewToken)]
    pairs = list(zip(range(51, 90), events[0].prompt_logprobs[1:], strict=True))
    pairs += [(event.token_id, event.logprob) for event in events]
    assert len(pairs) == 39 + 30
    assert all(score.logprob == dict(score.top)[token] for token, score in pairs)


def test_max_tokens_zero_scores_a_whole_context(model):
    engine = make_engine(model, **SMALL_BUDGET)
    prompt_ids = [i % 384 for i in range(model.config.block_size)]
    engine.add(Request("a", prompt_ids, SamplingParams(max_tokens=0, prompt_logprobs=1)))
    event = run_to_end(engine)[-1]
    assert (event.token_id, event.finish_reason) == (None, "length")
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([prompt_ids]))[0, :-1])
    chosen, _, _ = top_logprobs(logits, torch.tensor(prompt_ids[1:]), 0)
    got = torch.tensor([score.logprob for score in event.prompt_logprobs[1:]])
    torch.testing.assert_close(got, chosen, atol=1e-4, rtol=1e-4)
