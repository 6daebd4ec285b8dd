"""A contender in a process of its own, so that threads, memory and settings of one library never meet those of another.

In one process CTranslate2's threads took a third of our engine's speed, long after their own run (docs/benchmarks.md).
"""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from service.bench.contenders import Contender, Prompts

_CONTEXT = multiprocessing.get_context("spawn")


class Apart:
    """Runs as the contender does that `make` returns; a context manager, which ends the process.

    Args:
        make: a class or function at the top of a file, called in the new process with as many threads as here.
        arguments: what to call it with.

    Raises:
        RuntimeError: the process ended before its contender was ready; it has said why.
    """

    def __init__(self, make: Callable[..., Contender], *arguments: Any) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, torch.get_num_threads(), make, arguments))
        self._process.start()
        theirs.close()
        self.name: str = self._receive()

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        """Continue all prompts at once; return the seconds it took and the new ids of each."""
        self._connection.send((prompts, num_new))
        seconds, outputs = self._receive()
        return seconds, outputs

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a contender's process ended with status {self._process.exitcode}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, num_threads: int, make: Callable[..., Contender], arguments: Sequence[Any]) -> None:
    """Make the contender and run it for whoever asks, until nobody can any more."""
    torch.set_num_threads(num_threads)
    contender = make(*arguments)
    connection.send(contender.name)
    while True:
        try:
            prompts, num_new = connection.recv()
        except EOFError:
            return
        connection.send(contender.run(prompts, num_new))
