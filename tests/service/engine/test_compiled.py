"""Compiled decode steps against ordinary ones."""

import copy
import gc
import random
import shutil
import weakref

import pytest
import torch
from torch._dynamo.utils import counters

from model.cached_attention import Row
from model.cpu_linear import pack_linears
from model.gpt import GPT
from model.sampling_params import SamplingParams
from service.engine.compiled import CompiledDecode, check_compiler
from service.engine.engine import Engine
from service.engine.request import Request
from service.engine.runner import GPTRunner
from tests.service.engine.scripted import check, run_to_end, tokens_of
from tests.service.engine.test_oracle import make_engine
from tests.tiny import make_config, make_gpt

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
LIMITS = {"num_pages": 120, "page_size": 5, "max_num_seqs": 8, "max_num_batched_tokens": 64}


def draw_requests(count: int, vocab_size: int) -> list[Request]:
    rng = random.Random(1)
    return [
        Request(
            f"r{i}",
            [rng.randrange(vocab_size) for _ in range(rng.randint(1, 40))],
            SamplingParams(max_tokens=rng.randint(1, 40), temperature=i % 2, seed=i),
        )
        for i in range(count)
    ]


def answers(engine: Engine, requests: list[Request]) -> list[list[int]]:
    for request in requests:
        engine.add(request)
    outputs = run_to_end(engine)
    check(engine)
    return [tokens_of(outputs, request.uid) for request in requests]


@NEEDS_COMPILER
@pytest.mark.parametrize(("kind", "quantization"), [("gpt2", None), ("gpt2", "int8"), ("llama", None)])
def test_an_engine_gives_the_same_tokens_with_compiled_steps_and_compiles_nothing_more(kind, quantization):
    model = make_gpt(make_config(kind))
    other = copy.deepcopy(model)
    for each in (model, other):
        pack_linears(each, quantization)
    compiled, ordinary = make_engine(model, **LIMITS), make_engine(other, **LIMITS)
    compiled.runner.compile_steps()
    num_graphs = counters["stats"]["unique_graphs"]
    vocab_size = model.config.vocab_size
    both = [answers(engine, draw_requests(30, vocab_size)) for engine in (compiled, ordinary)]
    assert both[0] == both[1]
    alone = [answers(engine, draw_requests(1, vocab_size)) for engine in (compiled, ordinary)]
    assert alone[0] == alone[1]
    assert counters["stats"]["unique_graphs"] == num_graphs


@NEEDS_COMPILER
@torch.inference_mode()
def test_rows_of_any_length_that_is_covered_are_compiled_already() -> None:
    model = make_gpt(make_config("llama").model_copy(update={"block_size": 5000}))
    runner = GPTRunner(model, num_pages=1000, page_size=5)
    runner.compile_steps()
    assert runner.prepared is not None
    num_graphs = counters["stats"]["unique_graphs"]
    pages = list(range(1000))
    for longest in (4094, 1, 500):
        for others in ([], [3, 700]):
            rows = [Row(pages, start, 1) for start in (longest, *others)]
            assert runner.prepared.covers(rows)
            assert runner.prepared.run([1] * len(rows), rows).isfinite().all()
    assert counters["stats"]["unique_graphs"] == num_graphs
    assert not runner.prepared.covers([Row(pages, 4095, 1)])


@NEEDS_COMPILER
def test_a_model_is_forgotten_with_its_compiled_steps() -> None:
    runner = GPTRunner(make_gpt(make_config("gpt2")), num_pages=8, page_size=16)
    runner.compile_steps()
    model = weakref.ref(runner.model)
    del runner
    gc.collect()
    assert model() is None


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler, and there is no no-such-compiler here"):
        check_compiler()


def test_a_compiler_that_fails_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    model: GPT = make_gpt(make_config("gpt2"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (shutil.which("false"),))
    runner = GPTRunner(model, num_pages=8, page_size=16)
    with torch.inference_mode(), pytest.raises(ValueError, match="--compile failed; leave it out, or mend"):
        CompiledDecode(model, runner.cache)
