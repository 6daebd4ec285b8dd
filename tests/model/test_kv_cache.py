"""Cached attention equals attention over the whole sequence, however pages lie and steps are cut."""

import random

import pytest
import torch

from model.cached_attention import Row
from model.kv_cache import PagedKVCache, page_bytes
from tests.tiny import KINDS, make_config, make_gpt

STEPS = [
    [(0, 0, 10), (1, 0, 16)],  # (sequence, start, end): two chunks
    [(1, 16, 17), (0, 10, 29), (2, 0, 4)],  # a decode row, the rest of a prompt, a new one
    [(0, 29, 30), (2, 4, 5), (3, 0, 59)],
    [(3, 59, 60)],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page_size", [8, 64])
@pytest.mark.parametrize("layout", ["in order", "shuffled", "far apart"])
def test_stepwise_hidden_states_equal_those_of_one_pass(kind: str, page_size: int, layout: str) -> None:
    model = make_gpt(make_config(kind)).double()
    per_sequence = 64 // page_size
    cache = PagedKVCache(
        model.config, num_pages=64 * per_sequence, page_size=page_size, device="cpu", dtype=torch.float64
    )
    order = list(range(cache.num_pages))
    if layout == "shuffled":
        order = order[: 4 * per_sequence]
        random.Random(0).shuffle(order)
    stride = cache.num_pages // 4 if layout == "far apart" else per_sequence
    pages = [order[i * stride : i * stride + per_sequence] for i in range(4)]
    sequences = [torch.randint(model.config.vocab_size, (length,)) for length in (30, 17, 5, 60)]
    with torch.inference_mode():
        whole = [model(sequence[None])[0] for sequence in sequences]
        for step in STEPS:
            idx = torch.cat([sequences[i][start:end] for i, start, end in step])[None]
            positions = torch.cat([torch.arange(start, end) for _, start, end in step])[None]
            plan = cache.plan([Row(pages[i], start, end - start) for i, start, end in step])
            expected = torch.cat([whole[i][start:end] for i, start, end in step])
            torch.testing.assert_close(model(idx, positions, plan)[0], expected, atol=1e-12, rtol=1e-10)


def test_row_that_outgrows_its_pages_is_refused() -> None:
    cache = PagedKVCache(make_config("gpt2"), num_pages=2, page_size=8, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="9 tokens do not fit 1 pages of 8"):
        cache.plan([Row([0], 8, 1)])


def test_page_bytes_counts_what_the_cache_holds() -> None:
    config = make_config("llama")
    cache = PagedKVCache(config, num_pages=3, page_size=16, device="cpu", dtype=torch.bfloat16)
    held = sum(tensor.nbytes for tensor in [*cache.keys, *cache.values])
    assert held == 3 * page_bytes(config, 16, torch.bfloat16)
