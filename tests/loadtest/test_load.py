"""A short load run against a real server, as `make load` does it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_short_run_ends_without_failures_and_prints_the_table(tiny_checkpoints: Path) -> None:
    command = [sys.executable, "-m", "loadtest", *map(str, sorted(tiny_checkpoints.iterdir()))]
    run = subprocess.run(
        [*command, "--users", "5", "--seconds", "4"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = dict(cells for line in run.stdout.splitlines() if len(cells := split_row(line)) == 2)
    assert rows["failures"] == "0"
    assert rows["TTFT p50"].endswith(" ms")
    assert rows["inter-token latency p95"].endswith(" ms")
    assert int(rows["output tokens/s"]) > 0


def split_row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]
