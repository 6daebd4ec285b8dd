"""Pictures of measures: bars, histograms, intervals, a grid; as PNG. It knows numbers and names, not what they mean."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

BLUE, ORANGE, GREY = "tab:blue", "tab:orange", "0.45"


def draw_bars(
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    reference: tuple[str, float] | None = None,
) -> bytes:
    """Draw shares as bars that lie, one group for each name from the top down, with a line to compare with."""
    thickness = 0.8 / len(series)
    figure = Figure(figsize=(8, 1.4 + len(names) * max(0.22, 0.16 * len(series))), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    for number, (label, values) in enumerate(series):
        at = places + (number - (len(series) - 1) / 2) * thickness
        axes.barh(at, values, height=thickness, label=label, color=(BLUE, ORANGE, "tab:green")[number % 3])
    if reference is not None:
        axes.axvline(reference[1], color=GREY, linestyle="--", linewidth=1, label=reference[0])
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return _png(figure)


def draw_histogram(values: Sequence[float], *, title: str, label: str, low: float, high: float, num_bins: int) -> bytes:
    """Draw how often values occur, with their mean."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(low, high, num_bins + 1).tolist(), color=BLUE, edgecolor="white")
    mean = float(np.mean(values))
    axes.axvline(mean, color=ORANGE, linewidth=1.6, label=f"mean {mean:.3g}")
    axes.set_xlim(low, high)
    axes.set_xlabel(label)
    axes.set_ylabel("answers")
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
    return _png(figure)


def draw_intervals(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[tuple[float, float, float]]]], *, title: str, label: str
) -> bytes:
    """Draw values with their intervals, (value, low, high) for each name from the top down."""
    figure = Figure(figsize=(8, 1.6 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    for number, (legend, rows) in enumerate(series):
        values, low, high = np.array(rows).T
        at = np.arange(len(names)) + 0.18 * (number - (len(series) - 1) / 2)
        # The value of one order of votes may lie outside of what resampling gives: its bar is drawn where it is.
        axes.hlines(at, low, high, color=(BLUE, ORANGE)[number % 2], linewidth=2)
        axes.plot(values, at, "o", color=(BLUE, ORANGE)[number % 2], label=legend)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


def draw_grid(names: Sequence[str], shares: NDArray[np.float64], *, title: str) -> bytes:
    """Draw shares of each name against each other one (K, K), row over column; NaN stays empty."""
    size = 2.4 + 0.55 * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="RdBu", vmin=0, vmax=1)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if not np.isnan(value):
                color = "white" if abs(value - 0.5) > 0.3 else "black"
                axes.text(column, row, f"{value:.0%}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title, fontsize=11)
    figure.colorbar(image, format=PercentFormatter(1.0), shrink=0.8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
