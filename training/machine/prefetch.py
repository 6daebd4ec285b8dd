"""The next batch, prepared in a thread while the device works on the present one.

That is safe because a batch is a pure function of its step: whatever was prepared in vain is thrown away.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from training.data.batches import Batches
from training.loss import Batch
from training.machine.parallel import World


class Prefetch:
    """Batches of one process, each prepared while the one before it is used.

    Args:
        batches: the data.
        world: which of the processes asks.
        steps: where the run ends; nothing is prepared beyond.
        pin: put batches in memory from which a GPU can copy on its own.
    """

    def __init__(self, batches: Batches, world: World, *, steps: int, pin: bool = False) -> None:
        self._batches = batches
        self._place = (world.rank, world.size)
        self._steps = steps
        self._pin = pin
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step and start on the next one; what preparing it raised is raised here."""
        is_ready = self._next is not None and self._next[0] == step
        batch = self._next[1].result() if self._next is not None and is_ready else self._prepare(step)
        self._next = None
        if step + 1 < self._steps:
            self._next = (step + 1, self._pool.submit(self._prepare, step + 1))
        return batch

    def _prepare(self, step: int) -> Batch:
        batch = self._batches(step, *self._place)
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if self._pin else batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
