"""A model, or an adapter, that makes infinities or NaN of a sequence: it fails, and the others never know."""

import random
import shutil

import pytest
import torch

from model.adapter_rows import LoadedAdapter, Update
from model.cpu_linear import pack_linears
from model.sampling_params import SamplingParams
from service.engine.engine import Engine
from service.engine.request import Failure, NewToken, Pooled, Request
from tests.service.engine.scripted import check, run_to_end, tokens_of
from tests.service.engine.test_oracle import make_engine
from tests.tiny import make_config, make_gpt

LIMITS = {"num_pages": 40, "page_size": 8, "max_num_seqs": 8, "max_num_batched_tokens": 64}
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
PARTS = ("q", "k", "v", "out")
"""Of attention. What only keys have may be infinite without a trace in the sequence that owns them."""


def make_adapters(width: int) -> dict[str, LoadedAdapter]:
    """One adapter for each part of attention in the first layer, whose outputs there it makes far too large."""
    rng = torch.Generator().manual_seed(1)

    def update(rows: range, num_rows: int) -> Update:
        b = torch.zeros(num_rows, 2)
        b[rows.start : rows.stop] = 1e30 * torch.randn(len(rows), 2, generator=rng)
        return Update(1e10 * torch.randn(2, width, generator=rng), b)

    thirds = {part: range(i * width, (i + 1) * width) for i, part in enumerate("qkv")}
    adapters = {part: LoadedAdapter({"h.0.attn.qkv": update(rows, 3 * width)}, None) for part, rows in thirds.items()}
    adapters["out"] = LoadedAdapter({"h.0.attn.proj": update(range(width), width)}, None)
    return adapters


def draw_requests(round_: int, vocab_size: int) -> list[Request]:
    """Texts to continue, and two to embed, of the base; the same in every round."""
    rng = random.Random(7)
    requests = []
    for i in range(10):
        ids = [rng.randrange(vocab_size) for _ in range(rng.randint(1, 40))]
        pooling = "last" if i == 8 else "mean" if i == 9 else None
        params = SamplingParams(max_tokens=6, temperature=i % 2, seed=i)
        requests.append(Request(f"base-{round_}-{i}", ids, params, pooling=pooling, cache_salt=f"round {round_}"))
    return requests


def answers(engine: Engine, requests: list[Request]) -> list[list[int] | list[float]]:
    for request in requests:
        engine.add(request)
    outputs = run_to_end(engine)
    check(engine)
    assert not [output for output in outputs if isinstance(output, Failure)]
    pooled = {output.uid: output.values for output in outputs if isinstance(output, Pooled)}
    return [pooled.get(request.uid) or tokens_of(outputs, request.uid) for request in requests]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)])
def test_what_overflows_fails_alone_and_leaves_nothing_behind(compiled: bool) -> None:
    model = make_gpt(make_config("gpt2"))
    pack_linears(model, None)
    engine = make_engine(model, **LIMITS)
    if compiled:
        engine.runner.compile_steps()
    expected = answers(engine, draw_requests(0, model.config.vocab_size))
    for name, adapter in make_adapters(model.config.n_embd).items():
        engine.runner.adapters.add(name, adapter)
    rng = random.Random(3)
    num_failed = 0
    for round_ in range(1, 9):
        bad = [
            Request(
                f"bad-{round_}-{part}-{i}",
                [rng.randrange(model.config.vocab_size) for _ in range(rng.randint(1, 30))],
                SamplingParams(max_tokens=8, temperature=i % 2, logprobs=3, prompt_logprobs=2),
                adapter=part,
            )
            for part in PARTS
            for i in range(2)
        ]
        for request in bad:
            engine.add(request)
        outputs = run_to_end(engine)
        check(engine)
        failed = {output.uid for output in outputs if isinstance(output, Failure)}
        ended = {output.uid for output in outputs if isinstance(output, NewToken) and output.finish_reason is not None}
        assert failed | ended == {request.uid for request in bad}
        num_failed += len(failed)
        assert answers(engine, draw_requests(round_, model.config.vocab_size)) == expected
    assert num_failed > 40


def test_a_sequence_beside_one_that_overflows_is_as_if_alone() -> None:
    model = make_gpt(make_config("llama"))
    engine = make_engine(model, **LIMITS)
    expected = answers(engine, draw_requests(0, model.config.vocab_size))
    width = model.config.n_embd
    head = LoadedAdapter({"h.0.attn.proj": Update(torch.full((2, width), 1e30), torch.full((width, 2), 1e30))}, None)
    engine.runner.adapters.add("out", head)
    both = draw_requests(1, model.config.vocab_size)
    for i, request in enumerate(both):
        engine.add(request)
        engine.add(Request(f"bad{i}", request.prompt_ids, SamplingParams(max_tokens=4), adapter="out"))
    outputs = run_to_end(engine)
    assert sum(isinstance(output, Failure) for output in outputs) == len(both)
    pooled = {output.uid: output.values for output in outputs if isinstance(output, Pooled)}
    for request, given in zip(both, expected, strict=True):
        if request.pooling is None:
            assert tokens_of(outputs, request.uid) == given
        else:
            assert pooled[request.uid] == pytest.approx(given, abs=1e-4)
