"""A run's measurements as a table, and as a plot where matplotlib is installed.

Percentiles come from every single measurement, not from buckets.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(results: dict[str, Any]) -> str:
    """Return the summary of one run as a Markdown table.

    Args:
        results: What `locustfile.py --results` wrote.
    """
    measured = results["measurements"]
    duration_s = results["duration_s"] or math.nan
    rows = [
        ("users", f"{results['num_users']}"),
        ("duration", f"{duration_s:.1f} s"),
        ("requests", f"{results['num_requests']} ({results['num_requests'] / duration_s:.1f}/s)"),
        ("failures", f"{results['num_failures']}"),
        ("output tokens/s", f"{sum(measured['tokens']) / duration_s:.0f}"),
        *_latency_rows("TTFT", measured["ttft_s"]),
        *_latency_rows("inter-token latency", measured["itl_s"]),
        *_latency_rows("end to end", measured["e2e_s"]),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"| {'measure':<{width}} | value |", f"| {'-' * width} | ----- |"]
    lines += [f"| {name:<{width}} | {value} |" for name, value in rows]
    lines += [f"{count} x {failure}" for failure, count in results["failures"].items()]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> bool:
    """Draw how TTFT and inter-token latency are distributed; return False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(1, 2), (("ttft_s", "Time to first token"), ("itl_s", "Inter-token latency")), strict=True
    ):
        axes.hist([seconds * 1000 for seconds in results["measurements"][name]], bins=60)
        axes.set(title=title, xlabel="ms", ylabel="count")
    figure.savefig(path)
    return True


def _latency_rows(name: str, seconds: Sequence[float]) -> list[tuple[str, str]]:
    if not seconds:
        return [(name, "none measured")]
    return [(f"{name} p{round(100 * share)}", _milliseconds(percentile(seconds, share))) for share in (0.5, 0.95)]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
