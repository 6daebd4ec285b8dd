"""Several processes on one run: who is who, sums over all of them, and taking turns.

torchrun's environment is the contract; without it there is one process, and nothing here does anything. How a model is
spread over the processes is `shared_model`'s knowledge.
"""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from training.machine.device import pick_device

T = TypeVar("T")

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for one another: the first of them may be preparing much text."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together, seen from one of them."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        """Return the world that was joined, or that of a process alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def sum_counts(self, *counts: int) -> list[int]:
        """Add up numbers over all processes, without a wait for their devices."""
        if self.size == 1:
            return list(counts)
        total = torch.tensor(counts, dtype=torch.int64)
        dist.all_reduce(total)
        return total.tolist()

    def share(self, tensor: Tensor) -> None:
        """Overwrite a tensor with that of the first process."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def first(self, work: Callable[[], T]) -> T:
        """Let the first process work before the others do the same, which then find what it left."""
        result = work() if self.is_first else None
        self.wait()
        return work() if result is None else result

    def alone(self, work: Callable[[], T]) -> T:
        """Let the first process do something for all: its result, or its failure, is that of all of them."""
        outcome: list[T | None] = [None]
        failure: list[Exception | None] = [None]
        if self.is_first:
            try:
                outcome[0] = work()
            except Exception as error:
                failure[0] = error
        if self.size > 1:
            dist.broadcast_object_list(failure, src=0)
            dist.broadcast_object_list(outcome, src=0)
        if failure[0] is not None:
            raise failure[0]
        return cast(T, outcome[0])


@contextmanager
def join(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Raises:
        ValueError: the device is not there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # torchrun keeps its store when it starts the processes again, and with it the addresses of those that died.
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World.current()
        dist.barrier()  # none leaves while another still speaks
    finally:
        dist.destroy_process_group()
