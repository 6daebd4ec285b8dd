"""The cost curves, over a contender whose every token takes a known time."""

from pathlib import Path

import pytest

from service.bench.curves import curve_table, draw_curves, over_contexts, over_streams
from service.settings import BenchSettings

SETTINGS = BenchSettings(preset="tiny-gpt2", new_tokens=5, repeats=2)


class Steady:
    """A millisecond for each prompt token, then seconds per step as there are hundreds of tokens in a prompt."""

    name = "steady"

    def __init__(self) -> None:
        self.seen: set[tuple[int, ...]] = set()

    def run(self, prompts: list[list[int]], num_new: int) -> tuple[float, list[list[int]]]:
        assert self.seen.isdisjoint(map(tuple, prompts)), "a prompt came twice and could be found in a cache"
        self.seen.update(map(tuple, prompts))
        return sum(map(len, prompts)) / 1000 + (num_new - 1) * len(prompts[0]) / 100, [[0] * num_new for _ in prompts]


def test_contexts_double_up_to_the_longest_that_leaves_room() -> None:
    points = over_contexts(Steady(), SETTINGS)
    assert [point.at for point in points] == [64, 112]
    assert points[1].prefill_rate == pytest.approx(1000)
    assert points[1].step_s == pytest.approx(1.12)


def test_streams_share_a_step() -> None:
    points = over_streams(Steady(), SETTINGS)
    assert [point.at for point in points] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert points[-1].decode_rate == pytest.approx(128 / 0.64)


def test_curves_are_written_and_drawn(tmp_path: Path) -> None:
    points = {"steady": over_contexts(Steady(), SETTINGS)}
    assert curve_table("tokens", points).splitlines()[2] == "| 64 | 1000.0 | 1.6 | 640.0 |"
    draw_curves(tmp_path / "curve.png", "tokens", points)
    assert (tmp_path / "curve.png").stat().st_size > 1000
