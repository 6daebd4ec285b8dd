"""What a worker loads: classifiers as scoring functions, and no more threads than CPUs."""

import os
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_classifier
from service.host.workers import load_score, usable_cpus

ROWS = [[5, 9, 200], [7], [300, 2, 2, 8, 41, 3, 77, 19], [1, 2]]


def test_scores_in_a_batch_equal_scores_alone_and_the_models_own(tiny_checkpoints: Path) -> None:
    score = load_score(tiny_checkpoints / "tiny-spam")
    together = torch.tensor(score(ROWS))
    alone = torch.tensor([score([ids])[0] for ids in ROWS])
    model = load_classifier(tiny_checkpoints / "tiny-spam").eval()
    with torch.no_grad():
        own = torch.cat([model(torch.tensor([ids]), torch.tensor([len(ids)])) for ids in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, own, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("900000000 100000", None)],
)
def test_a_quota_of_the_control_group_limits_the_cpus(tmp_path: Path, cpu_max: str, expected: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(cpu_max)
    assert usable_cpus(file) == (expected or len(os.sched_getaffinity(0)))


def test_without_a_control_group_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
