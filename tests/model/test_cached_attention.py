"""Each way of reading the cache gives what the slow, obvious one gives."""

import random

import pytest
import torch

from model.cached_attention import (
    PAGED_MULTIPLE,
    GatheredAttention,
    PagedAttention,
    Row,
)
from model.kv_cache import choose_attention, make_memory, new_slots, places_of, vectors_of
from model.table_attention import TableAttention, choose_width
from model.tiled_attention import Run, find_runs, find_shared, tile_size, tiled_attention

D = 8
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="paged attention runs on NVIDIA GPUs of the Ampere generation or later",
)


def make_rows(rng: random.Random, num_pages: int, page_size: int, count: int) -> list[Row]:
    """Draw rows in every phase; some begin with pages of an earlier one."""
    free = list(range(num_pages))
    if rng.random() < 0.5:
        rng.shuffle(free)
    rows: list[Row] = []
    for _ in range(count):
        length = rng.choice([1, 1, rng.randint(2, 3 * page_size)])
        start = rng.randint(0, 6 * page_size)
        shared: list[int] = []
        if rows and rng.random() < 0.6:
            leader = rng.choice(rows)
            full = (leader.start + leader.length) // page_size  # it may fill them in this very step
            shared = list(leader.pages[: rng.randint(0, full)])
            start = max(start, len(shared) * page_size)
        missing = -(-(start + length) // page_size) - len(shared)
        rows.append(Row([*shared, *(free.pop(0) for _ in range(missing))], start, length))
    return rows


def draw(
    rows: list[Row], num_pages: int, page_size: int, heads: int, kv_heads: int, like: torch.Tensor
) -> list[torch.Tensor]:
    """Queries, keys and values; where nobody looks, keys are NaN."""
    torch.manual_seed(0)
    q = torch.randn(1, heads, sum(row.length for row in rows), D).to(like)
    memories = [make_memory((kv_heads, num_pages * page_size, D), page_size, like.device, like.dtype) for _ in range(2)]
    for memory in memories:
        memory.normal_()
    seen = {slot for row in rows for slot in new_slots(Row(row.pages, 0, row.start + row.length), page_size)}
    unseen = torch.tensor(sorted(set(range(num_pages * page_size)) - seen), device=like.device)
    vectors_of(memories[0])[places_of(memories[0], unseen)] = torch.nan  # keys may be left like that, values not
    return [q, *memories]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("page_size", [1, 4, 16, 200])
def test_reading_tiles_equals_gathering(seed: int, page_size: int) -> None:
    rng = random.Random(seed)
    rows = make_rows(rng, num_pages=12 * 12, page_size=page_size, count=rng.randint(1, 12))
    like = torch.empty(0, dtype=torch.float64)
    tensors = draw(rows, 12 * 12, page_size, 4, rng.choice([1, 2, 4]), like)
    tiled, gathered = (way(rows, page_size, like.device) for way in (tiled_attention, GatheredAttention))
    torch.testing.assert_close(tiled.attend(*tensors), gathered.attend(*tensors), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("page_size", [1, 4, 16, 200])
def test_reading_by_tables_equals_gathering(seed: int, page_size: int) -> None:
    rng = random.Random(seed)
    drawn = make_rows(rng, num_pages=12 * 12, page_size=page_size, count=rng.randint(1, 12))
    rows = [Row(row.pages, row.start + row.length - 1, 1) for row in drawn]
    like = torch.empty(0, dtype=torch.float64)
    tensors = draw(rows, 12 * 12, page_size, 4, rng.choice([1, 2, 4]), like)
    table, gathered = TableAttention.of(rows, page_size), GatheredAttention(rows, page_size, like.device)
    torch.testing.assert_close(table.attend(*tensors), gathered.attend(*tensors), atol=1e-12, rtol=1e-10)


def test_what_another_row_has_spoilt_is_not_read() -> None:
    rows = [Row([1], 5, 1), Row([2, 3, 4], 40, 1), Row([5], 15, 1)]
    q, *memories = draw(rows, 6, 16, 4, 2, torch.empty(0, dtype=torch.float64))
    for memory in memories:
        memory[0] = torch.nan
    for some in (rows, rows[:1]):
        y = TableAttention.of(some, 16).attend(q[:, :, : len(some)], *memories)
        assert y.isfinite().all()


def test_rows_are_cut_so_that_few_places_of_the_table_are_empty() -> None:
    assert choose_width([7]) == 7
    assert choose_width([7, 7, 6]) == 7
    assert choose_width([64, 4, 4, 3]) == 4
    assert choose_width([1]) == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reading_tiles_of_half_precision_is_as_exact_as_gathering_them(seed: int, dtype: torch.dtype) -> None:
    rows = make_rows(random.Random(seed), num_pages=144, page_size=16, count=8)
    q, *memories = draw(rows, 144, 16, 4, 2, torch.empty(0, dtype=dtype))
    exact = GatheredAttention(rows, 16, q.device).attend(q.double(), *(memory.double() for memory in memories))
    ways = (way(rows, 16, q.device).attend(q, *memories) for way in (tiled_attention, GatheredAttention))
    tiled, gathered = ((way.double() - exact).abs().max() for way in ways)
    assert tiled <= 1.5 * gathered


@needs_gpu
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_paged_attention_equals_gathering(seed: int, dtype: torch.dtype) -> None:
    rng = random.Random(seed)
    rows = make_rows(rng, num_pages=64, page_size=PAGED_MULTIPLE, count=rng.randint(1, 6))
    like = torch.empty(0, dtype=dtype, device="cuda")
    tensors = draw(rows, 64, PAGED_MULTIPLE, 4, rng.choice([1, 2, 4]), like)
    paged, gathered = (way(rows, PAGED_MULTIPLE, like.device) for way in (PagedAttention.of, GatheredAttention))
    torch.testing.assert_close(paged.attend(*tensors), gathered.attend(*tensors), atol=1e-2, rtol=1e-2)


@needs_gpu
def test_paged_attention_of_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = make_rows(random.Random(3), num_pages=64, page_size=PAGED_MULTIPLE, count=6)
    like = torch.empty(0, dtype=torch.bfloat16, device="cuda")
    q, *memory = draw(rows, 64, PAGED_MULTIPLE, 4, 2, like)
    together = PagedAttention.of(rows, PAGED_MULTIPLE, like.device).attend(q, *memory)
    parts = q.split([row.length for row in rows], dim=2)
    alone = [
        PagedAttention.of([row], PAGED_MULTIPLE, like.device).attend(part, *memory)
        for row, part in zip(rows, parts, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone, dim=2))


def test_a_memory_outside_the_kernels_reach_is_gathered() -> None:
    assert choose_attention(make_memory((2, 64, D), 16, "cpu", torch.bfloat16), 16) is tiled_attention
    assert choose_attention(torch.empty(4, 2, 16, D, device="meta"), 16) is GatheredAttention


def test_shared_pages_are_found_level_by_level() -> None:
    rows = [
        Row([0, 1, 2, 3], 15, 1),  # its last page is not full yet
        Row([0, 1, 2, 3], 16, 4),
        Row([0, 1, 7], 8, 1),
        Row([9], 0, 4),
    ]
    assert sorted(find_shared(rows, 4)) == [([0, 1], [2]), ([0, 1, 2], [0, 1])]


def test_a_tile_divides_a_page() -> None:
    assert [tile_size(page_size) for page_size in (1, 16, 32, 48, 200, 256, 37)] == [1, 16, 32, 24, 25, 32, 1]


def test_neighbouring_tiles_are_one_run_and_a_tile_read_twice_begins_another() -> None:
    assert find_runs([2, 3, 4, 9, 9, 10]) == [Run(tile=2, place=0, length=3), Run(9, 3, 1), Run(9, 4, 2)]
