"""The table and the plot of a run."""

from pathlib import Path
from typing import Any

import pytest

from loadtest.report import percentile, plot, table


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "num_users": 2,
        "duration_s": 10.0,
        "num_requests": 40,
        "num_failures": 1,
        "failures": {"POST /classify: 503": 1},
        "measurements": {
            "ttft_s": [0.010, 0.020, 0.030],
            "itl_s": [0.001] * 19 + [0.5],
            "e2e_s": [0.25],
            "tokens": [3, 7],
        },
    }


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4)])
def test_percentiles_are_measured_values(share: float, expected: float) -> None:
    assert percentile([3, 1, 4, 2], share) == expected


def test_the_table_holds_rates_percentiles_and_failures(results: dict[str, Any]) -> None:
    lines = [" ".join(line.split()) for line in table(results).splitlines()]
    for expected in (
        "| requests | 40 (4.0/s) |",
        "| failures | 1 |",
        "| output tokens/s | 1 |",
        "| TTFT p50 | 20.0 ms |",
        "| TTFT p95 | 30.0 ms |",
        "| inter-token latency p95 | 1.0 ms |",
        "1 x POST /classify: 503",
    ):
        assert expected in lines


def test_what_was_not_measured_is_said(results: dict[str, Any]) -> None:
    results["measurements"]["ttft_s"] = []
    assert "none measured" in table(results)


def test_a_plot_is_a_picture(results: dict[str, Any], tmp_path: Path) -> None:
    assert plot(results, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
