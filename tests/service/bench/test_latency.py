"""What the latency measures say of a model so small that only the order of work counts."""

import itertools

import pytest

from service.bench import latency
from service.bench.latency import (
    Waiting,
    first_token_table,
    make_model,
    measure_head_of_line,
    measure_shared_prefix,
    waiting_table,
)
from service.settings import BenchSettings

SETTINGS = BenchSettings(preset="tiny-gpt2", max_num_batched_tokens=128, prefill_chunk_tokens=32)


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"LONG_PROMPT_TOKENS": 300, "SYSTEM_PROMPT_TOKENS": 90, "CONTEXT": 512, "QUIET_STEPS": 3}.items():
        monkeypatch.setattr(latency, name, size)


def test_chunks_spread_a_long_prompt_over_steps() -> None:
    ticks = itertools.count()
    results = measure_head_of_line(make_model(SETTINGS), SETTINGS, clock=lambda: float(next(ticks)))
    assert {result.name: result.first_token_s for result in results} == {
        "no long prompt": [],
        "prompts in one step": [1, 1],
        "steps of the whole budget": [3, 3],
        "chunks beside streams": [10, 10],
    }
    assert [len(result.gaps_s) for result in results] == [3, 9 + 2, 9 + 6, 9 + 20]


def test_the_second_request_finds_the_system_prompt_in_the_cache() -> None:
    first, second = measure_shared_prefix(make_model(SETTINGS), SETTINGS)
    assert (first.cached_tokens, second.cached_tokens) == (0, 80)
    assert first_token_table([first, second]).splitlines()[3].startswith("| second | 80 |")


def test_waiting_is_told_in_milliseconds_by_percentile() -> None:
    table = waiting_table([Waiting("quiet", [0.02] * 99 + [0.5], []), Waiting("busy", [0.1, 0.3], [0.4, 1.25])])
    assert table.splitlines()[2:] == ["| quiet | 20 | 25 | 500 |  |", "| busy | 200 | 298 | 300 | 1.25 |"]
