import threading
import time

import pytest

from training.evaluation.crew import run_in_threads


def test_every_job_is_done_by_so_many_threads() -> None:
    done: list[tuple[int, int]] = []
    meeting = threading.Barrier(3)

    def work(job: int) -> None:
        if job < 3:
            meeting.wait(60)
        done.append((job, threading.get_ident()))

    assert len(list(run_in_threads(work, range(10), 3))) == 10
    assert sorted(job for job, _ in done) == list(range(10))
    assert len({thread for job, thread in done if job < 3}) == 3
    assert list(run_in_threads(work, [], 3)) == []


def test_after_an_error_what_is_at_work_is_finished_and_nothing_begins() -> None:
    begun: list[int] = []
    finished: list[int] = []

    def work(job: int) -> None:
        begun.append(job)
        if job == 0:
            raise ValueError("no answer")
        time.sleep(0.2)
        finished.append(job)

    with pytest.raises(ValueError, match="no answer"):
        list(run_in_threads(work, range(50), 2))
    assert sorted(finished) == sorted(begun)[1:]
    assert len(begun) < 5


def test_an_interruption_waits_for_nobody() -> None:
    let_go = threading.Event()
    jobs = run_in_threads(lambda job: job == 0 or let_go.wait(60), range(3), 3)
    next(jobs)
    with pytest.raises(KeyboardInterrupt):
        jobs.throw(KeyboardInterrupt)
    let_go.set()
