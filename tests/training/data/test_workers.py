import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest

from training.data.workers import WorkerLostError, run_jobs


def square(number: int) -> tuple[int, int]:
    time.sleep(0.05)
    return number * number, os.getpid()


def refuse(number: int) -> int:
    raise ValueError(f"number {number} is refused")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_each_job_is_done_once(num_workers: int) -> None:
    found = list(run_jobs(square, range(6), num_workers))
    assert sorted((job, result) for job, (result, _) in found) == [(i, i * i) for i in range(6)]
    pids = {pid for _, (_, pid) in found}
    assert pids == {os.getpid()} if num_workers == 1 else os.getpid() not in pids
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("work", "error"), [(refuse, ValueError), (die, WorkerLostError)])
def test_what_goes_wrong_in_a_worker_is_raised_here_and_ends_the_others(
    work: Callable[[int], int], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"refused|status -9.*fewer workers"):
        list(run_jobs(work, range(9), 2))
    for process in multiprocessing.active_children():
        process.join(timeout=30)
    assert multiprocessing.active_children() == []
