"""Constrained sequences in the real engine: beside others, preempted, on cached prefixes; and what they promise."""

import json
import random

import pytest
import torch

from model.constraint import ConstraintFactory
from model.gpt import GPT
from model.grammar import ConstraintSpec
from model.sampling_params import SamplingParams
from service.bench.random_gpt2 import make_tokenizer
from service.engine.engine import Engine
from service.engine.request import Failure, NewToken, Request
from tests.constrained_answers import ask, make_engine, run
from tests.tiny import make_config, make_gpt

TOKENIZER = make_tokenizer(500)
VOCAB_SIZE = 512
END_IDS = (TOKENIZER.eos_id,)
SPECS = [
    ConstraintSpec("json_object"),
    ConstraintSpec("regex", "([a-f]{3}-){2,25}"),
    ConstraintSpec("choice", '["alpha", "beta and gamma"]'),
    ConstraintSpec(
        "json_schema", json.dumps({"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 9})
    ),
]


@pytest.fixture(scope="module")
def model() -> GPT:
    return make_gpt(make_config("gpt2", vocab_size=VOCAB_SIZE, block_size=256))


@pytest.fixture(scope="module")
def factory() -> ConstraintFactory:
    return ConstraintFactory(lambda: TOKENIZER, vocab_size=VOCAB_SIZE, end_ids=END_IDS)


def make_requests(factory: ConstraintFactory, count: int = 16) -> list[Request]:
    """Every third is free; some have the same prompt, so that a prefix can be found."""
    draw = random.Random(1)
    shared = [draw.randrange(500) for _ in range(40)]
    return [
        Request(
            f"r{i}",
            [*shared, i] if i % 2 else [i, 2, 3],
            SamplingParams(max_tokens=draw.randint(60, 120), seed=i, logprobs=1 if i % 4 == 0 else None),
            end_ids=END_IDS,
            constraint=None if i % 3 == 0 else factory.make(SPECS[i % len(SPECS)]),
        )
        for i in range(count)
    ]


def test_a_constrained_sequence_is_the_same_whoever_is_beside_it_and_however_often_it_is_preempted(
    model: GPT, factory: ConstraintFactory
) -> None:
    alone = []
    for request in make_requests(factory):
        run(make_engine(model, 1), [request])
        alone.append(request.output_ids)
    for num_pages in (None, 16):
        engine, requests = make_engine(model, 12, num_pages), make_requests(factory)
        assert run(engine, requests) == set()
        assert [request.output_ids for request in requests] == alone
    assert engine.num_preemptions > 0


def test_log_probabilities_stay_those_of_the_model(model: GPT, factory: ConstraintFactory) -> None:
    """What is reported does not know of the mask: the most likely token may be one that could not follow."""
    request = Request(
        "r", [1, 2], SamplingParams(max_tokens=3, logprobs=5), end_ids=END_IDS, constraint=factory.make(SPECS[2])
    )
    tokens = collect(make_engine(model, 1), request)
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([[1, 2]]))[0, -1])
    expected = torch.log_softmax(logits.float(), dim=-1)
    first = tokens[0]
    assert first.logprob is not None
    assert first.token_id is not None
    assert first.logprob.logprob == pytest.approx(float(expected[first.token_id]), abs=1e-4)
    assert first.logprob.top[0][1] == pytest.approx(float(expected.max()), abs=1e-4)


@pytest.mark.parametrize(
    "params",
    [
        {"logit_bias": tuple((token_id, -100.0) for token_id in range(200))},
        {"min_tokens": 30},
        {"allowed_token_ids": (1, 2, 3)},
        {"temperature": 0.0, "repetition_penalty": 2.0},
        {"top_k": 1, "top_p": 0.1, "presence_penalty": 2.0},
    ],
)
def test_nothing_a_client_sets_breaks_the_promise(
    model: GPT, factory: ConstraintFactory, params: dict[str, object]
) -> None:
    settings = SamplingParams(**{"max_tokens": 40, "seed": 5, **params})  # type: ignore[arg-type]
    request = Request("r", [1, 2], settings, end_ids=END_IDS, constraint=factory.make(SPECS[2]))
    assert collect(make_engine(model, 1), request)[-1].finish_reason == "stop"
    assert TOKENIZER.decode(request.output_ids[:-1]) in ("alpha", "beta and gamma")


def test_a_constraint_that_cannot_go_on_fails_its_own_sequence_only(model: GPT, factory: ConstraintFactory) -> None:
    broken = factory.make(SPECS[1])
    broken.accept(TOKENIZER.encode("~")[0])  # what the mask forbids
    requests = [
        Request("bad", [1], SamplingParams(max_tokens=9), end_ids=END_IDS, constraint=broken),
        Request("good", [1], SamplingParams(max_tokens=9), end_ids=END_IDS, constraint=factory.make(SPECS[1])),
    ]
    engine = make_engine(model, 2)
    assert run(engine, requests) == {"bad"}
    assert len(requests[1].output_ids) == 9
    assert engine.scheduler.pool.usage == 0


def test_answers_to_random_schemas_satisfy_them(model: GPT) -> None:
    answers = ask(model, TOKENIZER, range(36), concurrency=12, num_pages=60)
    assert answers.wrong == []
    assert answers.outcomes["stop"] > 20
    assert answers.outcomes["too complex"] == 0


def collect(engine: Engine, request: Request) -> list[NewToken]:
    engine.add(request)
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert not any(isinstance(output, Failure) for output in outputs)
    return [output for output in outputs if isinstance(output, NewToken)]
