"""No more threads than CPUs, each on its own, and everything else wherever there is room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.host.cpus import arrange_threads, usable_cpus


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


THREADS = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
from service.host.cpus import arrange_threads, use_all_cpus
arrange_threads(int(sys.argv[1]), may_bind=True)
import torch
torch.set_num_threads(int(sys.argv[1]))
torch.randn(512, 512) @ torch.randn(512, 512)
torch.ones(4_000_000).exp()
places = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
other = ThreadPoolExecutor(1)
other.submit(use_all_cpus).result()
print(json.dumps([places, other.submit(os.sched_getaffinity, 0).result() == os.sched_getaffinity(os.getppid())]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="needs two CPUs")
def test_threads_as_many_as_cpus_have_one_each_and_others_any() -> None:
    num_cpus = len(os.sched_getaffinity(0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    places = {}
    for num_threads in (num_cpus, num_cpus - 1):
        command = [sys.executable, "-c", THREADS, str(num_threads)]
        result = subprocess.run(command, env=clean, check=True, capture_output=True, text=True)
        places[num_threads], is_free = json.loads(result.stdout)
        assert is_free
    alone = [[cpu] for cpu in sorted(os.sched_getaffinity(0))]
    assert all(place in places[num_cpus] for place in alone)
    assert not any(place in places[num_cpus - 1] for place in alone)


@pytest.mark.parametrize(
    ("given", "arranged"),
    [
        ({}, {"OMP_PROC_BIND": "true", "GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_PROC_BIND": "true", "GOMP_SPINCOUNT": "5"}),
        ({"OMP_PROC_BIND": "false"}, {"OMP_PROC_BIND": "false", "OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_the_operator_has_set_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], arranged: dict[str, str]
) -> None:
    for name in ("OMP_PROC_BIND", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    arrange_threads(len(os.sched_getaffinity(0)), may_bind=True)
    names = {"OMP_PROC_BIND", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    assert {name: os.environ[name] for name in names} == arranged
