import io
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from training.run import curves
from training.run.curves import COLORS, Run, draw, smooth


def make_run(name: str, *, num_steps: int = 60, floor: float = 1.0) -> Run:
    records: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = floor + math.exp(-step / 10)
        records.append({"kind": "train", "step": step, "loss": loss, "lr": 0.1, "tokens_per_s": 900.0 + step})
        if step % 20 == 0:
            records.append({"kind": "valid", "step": step, "loss": loss + 0.1})
            records.append({"kind": "sample", "step": step, "prompt": "a", "text": "b"})
    return Run(name, records)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is drawn."""
    found: list[Any] = []

    def make(**options: Any) -> Figure:
        found.append(Figure(**options))
        return found[-1]

    monkeypatch.setattr(curves, "Figure", make)
    return found


def test_one_run_shows_both_losses_and_what_explains_them(figures: list[Any]) -> None:
    picture = imread(io.BytesIO(draw([make_run("boat")])))
    assert picture.shape[1] > picture.shape[0] > 500
    loss, rate, speed = figures[0].axes
    assert [axes.get_title() for axes in (rate, speed)] == ["learning rate", "tokens per second"]
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["training, smoothed", "validation, * lowest"]
    raw, smoothed, valid, best = loss.lines
    assert len(raw.get_xdata()) == len(smoothed.get_xdata()) == 60
    assert valid.get_xdata().tolist() == [20, 40, 60]
    assert best.get_xdata().tolist() == [60]


def test_several_runs_share_the_panels_and_have_their_own_colors_and_names(figures: list[Any]) -> None:
    draw([make_run("oak"), make_run("elm", num_steps=80, floor=2.0)])
    loss = figures[0].axes[0]
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels[:2] == ["oak", "elm"]
    assert {line.get_color() for line in loss.lines} == set(COLORS[:2])


def test_runs_without_records_have_an_empty_picture(figures: list[Any]) -> None:
    assert draw([Run("boat", [])]).startswith(b"\x89PNG")
    assert len(figures[0].axes) == 1


def test_long_runs_are_thinned(figures: list[Any]) -> None:
    draw([make_run("boat", num_steps=9000)])
    assert len(figures[0].axes[0].lines[0].get_xdata()) <= 4500


def test_smoothing_does_not_lag_behind_a_slope_and_calms_what_is_noisy() -> None:
    slope = np.linspace(5.0, 1.0, 500)
    assert smooth(slope)[:400] == pytest.approx(slope[:400])
    noise = np.random.default_rng(0).normal(size=500)
    assert smooth(noise)[50:].std() < 0.4
    assert len(smooth(np.array([]))) == 0
    assert smooth(np.array([3.0])) == pytest.approx([3.0])
