"""Compiled decode steps against ordinary ones."""

import copy
import gc
import os
import random
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

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
def test_steps_go_on_while_another_model_is_compiled() -> None:
    def compile_another() -> None:
        model = make_gpt(make_config("gpt2").model_copy(update={"n_layer": 3}))
        pack_linears(model, None)
        make_engine(model, **LIMITS).runner.compile_steps()

    model = make_gpt(make_config("gpt2"))
    pack_linears(model, None)
    engine = make_engine(model, **LIMITS)
    engine.runner.compile_steps()
    expected = answers(engine, draw_requests(3, model.config.vocab_size))
    with ThreadPoolExecutor(1) as thread:
        compiling = thread.submit(compile_another)
        while not compiling.done():
            assert answers(engine, draw_requests(3, model.config.vocab_size)) == expected
        compiling.result()


@NEEDS_COMPILER
def test_a_model_is_forgotten_with_its_compiled_steps() -> None:
    runner = GPTRunner(make_gpt(make_config("gpt2")), num_pages=8, page_size=16)
    runner.compile_steps()
    model = weakref.ref(runner.model)
    del runner
    gc.collect()
    assert model() is None


@NEEDS_COMPILER
def test_another_model_of_the_same_shape_is_found_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    misses, answered = [], []
    for seed in (1, 2):
        model = make_gpt(make_config("gpt2"))
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.h[0].mlp.up.weight)
        other = copy.deepcopy(model)
        for each in (model, other):
            pack_linears(each, None)
        engine = make_engine(model, **LIMITS)
        before = counters["inductor"]["fxgraph_cache_miss"]
        engine.runner.compile_steps()
        misses.append(counters["inductor"]["fxgraph_cache_miss"] - before)
        requests = [draw_requests(5, model.config.vocab_size) for _ in range(2)]
        answered.append(answers(engine, requests[0]))
        assert answered[-1] == answers(make_engine(other, **LIMITS), requests[1])
    assert misses == [2, 0]
    assert answered[0] != answered[1]


@pytest.mark.parametrize("fault", ["is a file", "is read-only", "is noexec"])
def test_where_programs_cannot_be_kept_the_message_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("CXX", "true")
    expected = "it cannot be written"
    if fault == "is a file":
        (tmp_path / "kept").write_text("")
    elif fault == "is read-only":
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/self/kept")
    else:
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
        expected = "no program may be run from there"
    with pytest.raises(ValueError, match=f"{expected}.*: set TORCHINDUCTOR_CACHE_DIR to another"):
        check_compiler()


def test_programs_are_kept_where_only_the_user_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that what is set now is undone
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "true")
    check_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "groundup" / "compiled")
    assert (tmp_path / "groundup" / "compiled").stat().st_mode & 0o077 == 0


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler, and there is no no-such-compiler here"):
        check_compiler()


def test_a_compiler_that_fails_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    model: GPT = make_gpt(make_config("gpt2"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    runner = GPTRunner(model, num_pages=8, page_size=16)
    with (
        torch._inductor.config.patch({"cpp.cxx": (shutil.which("false"),)}),
        torch.inference_mode(),
        pytest.raises(ValueError, match="--compile failed; leave it out, mend what it needs, or empty"),
    ):
        CompiledDecode(model, runner.cache)
