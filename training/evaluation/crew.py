"""Jobs over threads, of which a process that is interrupted waits for none."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

JobT = TypeVar("JobT")


def run_in_threads(work: Callable[[JobT], object], jobs: Sequence[JobT], num_threads: int) -> Iterator[None]:
    """Yield as often as a job is done, in no certain order.

    After an error no further job begins, and those at work are waited for. Ctrl-C leaves them behind: threads that
    wait for a network cannot be ended, but they end with the process.

    Raises:
        Exception: what `work` raised, first come first.
    """
    waiting: SimpleQueue[JobT] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    outcomes: SimpleQueue[Exception | None] = SimpleQueue()
    is_over = threading.Event()
    arguments = (work, waiting, outcomes, is_over)
    crew = [threading.Thread(target=_serve, args=arguments, daemon=True) for _ in range(min(num_threads, len(jobs)))]
    for thread in crew:
        thread.start()
    try:
        for _ in jobs:
            if (error := outcomes.get()) is not None:
                is_over.set()
                for thread in crew:
                    thread.join()
                raise error
            yield
    finally:
        is_over.set()


def _serve(
    work: Callable[[JobT], object],
    waiting: "SimpleQueue[JobT]",
    outcomes: "SimpleQueue[Exception | None]",
    is_over: threading.Event,
) -> None:
    while not is_over.is_set():
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        try:
            work(job)
        except Exception as error:
            outcomes.put(error)
        else:
            outcomes.put(None)
