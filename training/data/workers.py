"""Independent jobs over several processes, or here if one is enough; nobody is left behind when this process dies.

It knows no job. A worker whose parent was killed finds its pipe closed after its present job, and ends.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class WorkerLostError(OSError):
    """A worker process ended without an answer, as one does that ran out of memory."""


def run_jobs(work: Callable[[JobT], ResultT], jobs: Sequence[JobT], num_workers: int) -> Iterator[tuple[JobT, ResultT]]:
    """Yield each job with its result as it is done, in no certain order.

    Raises:
        WorkerLostError: a worker died.
        Exception: what `work` raised, first come first; the other workers are ended.
    """
    num_workers = min(num_workers, len(jobs))
    if num_workers <= 1:
        yield from ((job, work(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    crew: dict[Connection, tuple[JobT, SpawnProcess]] = {}
    waiting = iter(jobs)
    try:
        for job in [next(waiting) for _ in range(num_workers)]:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            process.start()
            theirs.close()
            ours.send(job)
            crew[ours] = (job, process)
        while crew:
            for connection in wait(list(crew)):
                assert isinstance(connection, Connection)
                job, process = crew[connection]
                yield job, _receive(connection, process)
                del crew[connection]
                following = next(waiting, None)
                if following is None:
                    connection.close()
                    process.join()
                else:
                    connection.send(following)
                    crew[connection] = (following, process)
    finally:
        for _, process in crew.values():
            process.terminate()


def _receive(connection: Connection, process: SpawnProcess) -> Any:
    try:
        has_failed, answer = connection.recv()
    except EOFError:
        process.join()
        raise WorkerLostError(f"a worker ended with status {process.exitcode}; try again with fewer workers") from None
    if has_failed:
        raise answer
    return answer


def _serve(connection: Connection, work: Callable[[JobT], ResultT]) -> None:
    """Do jobs until the pipe is closed, by a parent that has no more or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the terminal's processes; the parent decides
    while True:
        try:
            job: JobT = connection.recv()
        except EOFError:
            return
        answer: tuple[bool, object]
        try:
            answer = (False, work(job))
        except Exception as error:
            answer = (True, error)
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
