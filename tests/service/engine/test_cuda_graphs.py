"""Captured decode steps against ordinary ones: the bookkeeping everywhere, the graphs themselves on a GPU."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.cached_attention import Row
from model.generate import generate
from model.kv_cache import PagedKVCache
from model.sampling_params import SamplingParams
from service.engine.cuda_graphs import DecodeGraphs, DecodeInputs, graph_sizes
from service.engine.request import Request
from tests.service.engine.scripted import run_to_end, tokens_of
from tests.service.engine.test_oracle import make_engine
from tests.tiny import KINDS, make_config, make_gpt

PAGE_SIZE = 8
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class AttentionByTable:
    """Reads the inputs when it runs, as a captured kernel does: row by row, page by page."""

    def __init__(self, inputs: DecodeInputs, page_size: int) -> None:
        self.inputs = inputs
        self.page_size = page_size

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        parts = []
        for i, (pages, seen) in enumerate(zip(self.inputs.block_table, self.inputs.num_seen, strict=True)):
            places = torch.arange(int(seen))
            slots = pages[places // self.page_size] * self.page_size + places % self.page_size
            tile = keys.shape[2]
            k, v = (m.transpose(1, 2)[slots // tile, slots % tile].transpose(0, 1)[None] for m in (keys, values))
            parts.append(F.scaled_dot_product_attention(q[:, :, i : i + 1], k, v, enable_gqa=True))
        return torch.cat(parts, dim=2)


def rerun(step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Stand in for a graph: run the step again and write its result where the first one lies."""
    result = step()

    def replay() -> None:
        result.copy_(step())

    return result, replay


def make_cache(model, device="cpu", dtype=torch.float32, page_size=PAGE_SIZE):
    return PagedKVCache(model.config, num_pages=24, page_size=page_size, device=device, dtype=dtype)


def prefill(model, cache, prompts, pages):
    rows = [Row(row_pages, 0, len(prompt)) for row_pages, prompt in zip(pages, prompts, strict=True)]
    idx = torch.cat(prompts)[None].to(cache.keys[0].device)
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])[None].to(idx.device)
    model(idx, positions, plan=cache.plan(rows))


def decode(model, cache, token_ids, rows):
    device = cache.keys[0].device
    idx = torch.tensor([token_ids], device=device)
    return model(idx, torch.tensor([[row.start for row in rows]], device=device), plan=cache.plan(rows))[0]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_captured_step_gives_what_an_ordinary_one_gives_at_every_size_of_batch(kind):
    model = make_gpt(make_config(kind))
    captured, ordinary = make_cache(model), make_cache(model)
    graphs = DecodeGraphs(model, captured, max_num_seqs=5, capture=rerun, attend=AttentionByTable)
    torch.manual_seed(1)
    lengths = [3, 8, 11, 1, 15]
    prompts = [torch.randint(model.config.vocab_size, (length,)) for length in lengths]
    pages = [[2 * i + 5, 2 * i + 4] for i in range(len(lengths))]
    for cache in (captured, ordinary):
        prefill(model, cache, prompts, pages)
    for num_rows in (5, 3, 1):
        rows = [Row(pages[i], lengths[i], 1) for i in range(num_rows)]
        token_ids = list(range(7, 7 + num_rows))
        assert graphs.covers(rows)
        expected = decode(model, ordinary, token_ids, rows)
        torch.testing.assert_close(graphs.run(token_ids, rows), expected, atol=1e-5, rtol=1e-5)


def test_prompts_and_batches_that_are_too_large_go_the_ordinary_way():
    model = make_gpt(make_config("gpt2"))
    graphs = DecodeGraphs(model, make_cache(model), max_num_seqs=2, capture=rerun, attend=AttentionByTable)
    one = Row([0], 3, 1)
    assert graphs.covers([one, one])
    assert not graphs.covers([one, one, one])
    assert not graphs.covers([one, Row([1], 0, 2)])


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (20, [1, 2, 4, 8, 16, 20]), (32, [1, 2, 4, 8, 16, 24, 32])],
)
def test_sizes_reach_the_largest_batch_and_no_further(most, sizes):
    assert graph_sizes(most) == sizes


def test_missing_rows_are_copies_of_the_first():
    inputs = DecodeInputs(torch.zeros((3, 6), dtype=torch.int32))
    inputs.fill([42], [Row([5, 9], 9, 1)], page_size=8)
    assert inputs.buffer.tolist() == [[42, 9, 73, 10, 5, 9]] * 3


@NEEDS_GPU
@torch.inference_mode()
def test_a_cuda_graph_gives_the_bits_of_the_step_it_captured():
    model = make_gpt(make_config("gpt2")).cuda().bfloat16()
    captured, ordinary = (make_cache(model, "cuda", torch.bfloat16, page_size=256) for _ in range(2))
    graphs = DecodeGraphs(model, captured, max_num_seqs=4)
    prompts, pages = [torch.arange(5), torch.arange(9)], [[3], [1]]
    for cache in (captured, ordinary):
        prefill(model, cache, prompts, pages)
    rows = [Row(pages[0], 5, 1), Row(pages[1], 9, 1)]
    assert torch.equal(graphs.run([3, 4], rows), decode(model, ordinary, [3, 4], rows))


@NEEDS_GPU
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_engine_gives_the_same_tokens_with_and_without_graphs(kind):
    model = make_gpt(make_config(kind)).cuda().bfloat16()
    limits = {"num_pages": 8, "page_size": 256, "max_num_seqs": 6, "max_num_batched_tokens": 64}
    captured, ordinary = make_engine(model, **limits), make_engine(model, **limits)
    captured.runner.capture_graphs(6)
    answers = []
    for engine in (captured, ordinary):
        for i in range(6):
            prompt_ids = list(range(1 + i, 2 + 5 * i))
            params = SamplingParams(max_tokens=20, temperature=i % 2, seed=i)
            engine.add(Request(f"r{i}", prompt_ids or [1], params))
        outputs = run_to_end(engine)
        answers.append([tokens_of(outputs, f"r{i}") for i in range(6)])
    assert answers[0] == answers[1]


@NEEDS_GPU
def test_an_engine_on_a_gpu_in_float32_gives_what_generate_gives():
    model = make_gpt(make_config("gpt2")).cuda()
    engine = make_engine(model, num_pages=64, page_size=16, max_num_seqs=6, max_num_batched_tokens=64)
    engine.runner.capture_graphs(6)
    assert engine.runner.prepared is None  # this type has no kernel that reads page tables
    requests = [Request(f"r{i}", [1 + i, 2, 3], SamplingParams(max_tokens=20, temperature=0)) for i in range(6)]
    for request in requests:
        engine.add(request)
    outputs = run_to_end(engine)
    for request in requests:
        alone = generate(model, request.prompt_ids, request.params)
        assert tokens_of(outputs, request.uid) == alone.output_ids
