"""Draws how a classifier fares: which labels it confuses, and whether its probabilities mean what they say."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.evaluation.intervals import share_interval
from training.evaluation.labels import NUM_BINS, LabelMeasures

MAX_NUMBERED = 20
"""Classes up to which every cell of a confusion matrix bears its number."""

MAX_NAMED = 60
"""Classes up to which every row bears its label."""

MAX_BARS = 40
"""Labels shown where texts have several; those with the most mistakes."""

LONGEST_NAME = 24


def draw_confusion(measures: LabelMeasures) -> bytes:
    """Return a PNG of the confusion matrix; with several labels a text, of hits, misses and false alarms."""
    return _draw_counts(measures) if measures.is_multi_label else _draw_matrix(measures)


def _draw_matrix(measures: LabelMeasures) -> bytes:
    table = measures.confusion
    size = len(table)
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    side = min(14.0, max(4.5, 2.2 + 0.55 * size)) if size <= MAX_NUMBERED else 9.0
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1), shrink=0.8, label="share of the row")
    if size <= MAX_NUMBERED:
        for row, column in np.ndindex(table.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{table[row, column]:,}", ha="center", va="center", color=color, fontsize=9)
    if size <= MAX_NAMED:
        names = [_short(label) for label in measures.labels]
        font = 9 if size <= MAX_NUMBERED else 6
        axes.set_xticks(range(size), names, rotation=0 if size <= 4 else 90, fontsize=font)
        axes.set_yticks(range(size), names, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(f"{measures.num_texts:,} texts, {measures.accuracy:.1%} right", fontsize=10)
    return _png(figure)


def _draw_counts(measures: LabelMeasures) -> bytes:
    hits = (measures.predicted & measures.actual).sum(0)
    misses = (~measures.predicted & measures.actual).sum(0)
    alarms = (measures.predicted & ~measures.actual).sum(0)
    chosen = np.sort(np.argsort(-(misses + alarms), kind="stable")[:MAX_BARS])[::-1]
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(chosen))
    axes.barh(places, hits[chosen], color="tab:blue", label="found")
    axes.barh(places, misses[chosen], left=hits[chosen], color="tab:gray", label="missed")
    axes.barh(places, -alarms[chosen], color="tab:orange", label="given wrongly")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [_short(measures.labels[i]) for i in chosen], fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.set_xlabel("texts")
    axes.set_title(
        f"{measures.num_texts:,} texts, {measures.accuracy:.1%} with every label right"
        + (f"; the {MAX_BARS} labels with the most mistakes" if len(chosen) < len(measures.labels) else ""),
        fontsize=10,
    )
    figure.legend(fontsize=9, loc="outside lower center", ncols=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    return _png(figure)


def draw_calibration(measures: LabelMeasures) -> bytes:
    """Return a PNG of accuracy by confidence, with 95% intervals, above how many answers are how confident."""
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = measures.calibration
    confidences, accuracies = [b.confidence for b in bins], [b.accuracy for b in bins]
    intervals = [share_interval(round(b.accuracy * b.num_answers), b.num_answers) for b in bins]
    reach = [
        [max(0.0, b.accuracy - low) for b, (low, _) in zip(bins, intervals, strict=True)],
        [max(0.0, high - b.accuracy) for b, (_, high) in zip(bins, intervals, strict=True)],
    ]
    above.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", linewidth=1, label="as sure as right")
    above.errorbar(confidences, accuracies, yerr=reach, color="tab:blue", marker="o", capsize=3, label="this model")
    above.set_ylabel("share that is so" if measures.is_multi_label else "share that is right")
    above.set_ylim(-0.03, 1.03)
    above.yaxis.set_major_formatter(PercentFormatter(1))
    above.set_title(f"expected calibration error {measures.calibration_error:.3f}", fontsize=10)
    figure.legend(fontsize=9, loc="outside lower center", ncols=2)
    probabilities, _ = measures.answers
    below.hist(probabilities, bins=np.linspace(0, 1, 2 * NUM_BINS + 1).tolist(), color="tab:blue", alpha=0.7)
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.set_ylabel("answers")
    below.set_xlabel("probability of each label" if measures.is_multi_label else "probability of the chosen label")
    below.set_xlim(0 if measures.is_multi_label else max(0.0, 1 / len(measures.labels) - 0.05), 1.01)
    below.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (above, below):
        _tidy(axes)
    return _png(figure)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _short(label: str) -> str:
    """Cut a long name; a dollar sign would start a formula."""
    name = " ".join(label.split())
    cut = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
    return cut.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
