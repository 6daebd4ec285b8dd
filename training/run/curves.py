"""Draws how runs went: loss, learning rate, gradient norm and speed over the steps, of one run or of several.

It knows records of metrics; where they lie is the caller's business.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from training.run.tracking import Record

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")

DETAILS = {"lr": "learning rate", "grad_norm": "gradient norm", "tokens_per_s": "tokens per second"}
"""Metrics of training steps that get a panel of their own, if any run has them."""

MAX_POINTS = 4000
"""Raw values drawn of a run; more would only make the ink thicker."""


Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """The records of one run, and what it is called in the legend."""

    name: str
    records: Sequence[Record]

    def series(self, kind: str, metric: str) -> tuple[Values, Values]:
        """Return steps and values of one metric."""
        chosen = [(r["step"], r[metric]) for r in self.records if r["kind"] == kind and metric in r]
        steps, values = np.array(chosen, dtype=np.float64).reshape(-1, 2).T
        return steps, values


def draw(runs: Sequence[Run]) -> bytes:
    """Return the curves of some runs as PNG: the loss on top, what explains it below."""
    details = [metric for metric in DETAILS if any(len(run.series("train", metric)[0]) for run in runs)]
    figure = Figure(figsize=(9, 7 if details else 4.5), layout="constrained")
    rows: list[Any] = [["loss"] * max(1, len(details)), *([details] if details else [])]
    panels = figure.subplot_mosaic(rows, height_ratios=[5, 3] if details else None)
    colors = [COLORS[place % len(COLORS)] for place in range(len(runs))]
    for run, color in zip(runs, colors, strict=True):
        draw_loss(panels["loss"], run, color, COLORS[1] if len(runs) == 1 else color)
        for metric in details:
            draw_detail(panels[metric], run, metric, color)
    finish_loss(panels["loss"], runs, colors)
    for metric in details:
        panels[metric].set_title(DETAILS[metric], fontsize=10)
        if metric == "tokens_per_s":
            panels[metric].yaxis.set_major_formatter(EngFormatter(sep=""))
        tidy(panels[metric])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def draw_loss(axes: Axes, run: Run, color: str, valid_color: str) -> None:
    """Draw training loss, raw and smoothed, and validation loss."""
    steps, losses = run.series("train", "loss")
    thin = slice(None, None, max(1, len(steps) // MAX_POINTS))
    axes.plot(steps[thin], losses[thin], color=color, alpha=0.2, linewidth=0.7)
    axes.plot(steps[thin], smooth(losses)[thin], color=color, linewidth=1.6)
    steps, losses = run.series("valid", "loss")
    axes.plot(steps, losses, color=valid_color, linestyle="--", linewidth=1.2, marker="o", markersize=3.5)
    if len(steps):
        best = int(losses.argmin())
        axes.plot(steps[best], losses[best], color=valid_color, marker="*", markersize=11, markeredgecolor="white")


def draw_detail(axes: Axes, run: Run, metric: str, color: str) -> None:
    """Draw one metric of the training steps; noisy ones smoothed, with the raw values faint behind."""
    steps, values = run.series("train", metric)
    thin = slice(None, None, max(1, len(steps) // MAX_POINTS))
    if metric == "lr":
        axes.plot(steps[thin], values[thin], color=color, linewidth=1.4)
        axes.set_ylim(bottom=0)
        return
    highest = axes.get_ylim()[1] if axes.lines else 0.0
    axes.plot(steps[thin], values[thin], color=color, alpha=0.2, linewidth=0.7)
    axes.plot(steps[thin], smooth(values)[thin], color=color, linewidth=1.4)
    if len(values):  # a few wild values, such as those of the first steps, must not flatten the rest
        axes.set_ylim(0, max(highest, 1.3 * float(np.quantile(values, 0.98))))


def smooth(values: Values) -> Values:
    """Average each value with its neighbours, a fiftieth of the run on either side or what there is at its end.

    At the start there are as many behind as before, so that a steep fall is not lagged behind.
    """
    places = np.arange(len(values))
    behind = np.minimum(places, len(values) // 50)
    ahead = np.minimum(behind, places[::-1])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    smoothed: Values = (sums[places + ahead + 1] - sums[places - behind]) / (ahead + behind + 1)
    return smoothed


def finish_loss(axes: Axes, runs: Sequence[Run], colors: Sequence[str]) -> None:
    """Give the panel of the loss its labels and its legend: what the lines mean, and the name of each run."""
    gray = "tab:gray" if len(runs) > 1 else None
    lines = [
        Line2D([], [], color=gray or colors[0] if colors else "tab:gray", linewidth=1.6, label="training, smoothed"),
        Line2D(
            *([], []), color=gray or COLORS[1], linestyle="--", marker="o", markersize=3.5, label="validation, * lowest"
        ),
    ]
    if len(runs) > 1:
        named = zip(runs, colors, strict=True)
        lines = [*(Line2D([], [], color=color, linewidth=3, label=run.name) for run, color in named), *lines]
    axes.legend(handles=lines, fontsize=9, framealpha=0.9)
    axes.set_ylabel("loss (nats per target)")
    axes.set_xlabel("step")
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Give a panel a light grid, whole steps, and no frame where nothing is read off."""
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(labelsize=9)
