"""The whole training state on disk, so that no more than the steps since the last snapshot can be lost.

A snapshot is a folder `step-N` of safetensors files, one from each process, as torch.distributed.checkpoint cuts and
labels them, and a `state.json` of numbers; nothing is pickled. Any number of processes can read what any other number
wrote. It is written beside its place, synced and renamed, so that half a snapshot never looks like a whole one. What
the tensors mean is `state`'s knowledge.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from training.machine.parallel import World

STATE_FILE = "state.json"


class SnapshotError(ValueError):
    """A snapshot cannot be written or read; the message says what was kept and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot on disk."""

    path: Path

    @property
    def step(self) -> int:
        """Number of steps done when it was taken."""
        return int(self.path.name.removeprefix("step-"))

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """What was saved beside the tensors."""
        try:
            found: dict[str, Any] = json.loads((self.path / STATE_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None
        return found

    @cached_property
    def tensors(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Size and type of each tensor, whole."""
        try:
            stored = HuggingFaceStorageReader(str(self.path)).read_metadata().state_dict_metadata
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from None
        return {
            name: (value.size, value.properties.dtype)
            for name, value in stored.items()
            if isinstance(value, TensorStorageMetadata)
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Fill tensors from those of the same names, each process its own parts.

        Raises:
            SnapshotError: one is missing, has another size, or cannot be read.
        """
        reader = HuggingFaceStorageReader(str(self.path))
        try:
            with alone_is_fine():
                load(tensors, storage_reader=reader)
        except (CheckpointException, OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException) -> SnapshotError:
        return SnapshotError(f"{self.path}: cannot be read ({reason(error)}); remove it to go on from the one before")


class Snapshots:
    """The snapshots of one run, oldest removed first.

    Args:
        folder: holds one folder for each of them.
        keep_last: how many to keep.
    """

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.world = World.current()

    def all(self) -> list[Snapshot]:
        """Return every whole snapshot, in order of steps."""
        return sorted((Snapshot(path) for path in self.folder.glob("step-*")), key=lambda found: found.step)

    def last(self) -> Snapshot | None:
        """Return the newest snapshot."""
        return next(iter(self.all()[::-1]), None)

    def save(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Write a snapshot and remove the oldest ones; to be called on all processes alike.

        Raises:
            SnapshotError: it cannot be written; older ones are whole.
        """
        place, aside = self.folder / f"step-{step:08d}", self.folder / f".step-{step:08d}"
        try:
            self.world.alone(lambda: make_empty(aside))
            writer = HuggingFaceStorageWriter(str(aside), save_distributed=True)
            with alone_is_fine():
                save({name: storable(tensor) for name, tensor in tensors.items()}, storage_writer=writer)
            self.world.alone(lambda: put_in_place(aside, place, numbers))
        except (CheckpointException, OSError, RuntimeError, SafetensorError) as error:
            if self.world.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            kept = self.last()
            safe = f"step {kept.step} is safe in {kept.path}" if kept else "there is no earlier one"
            raise SnapshotError(f"--out: no snapshot of step {step}: {place}: {reason(error)}; {safe}") from None
        self.world.alone(self._prune)

    def _prune(self) -> None:
        for snapshot in self.all()[: -self.keep_last]:
            leaving = snapshot.path.with_name(f".{snapshot.path.name}")  # from here on it does not look whole
            snapshot.path.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)


def make_empty(folder: Path) -> None:
    """Make a folder, or make it anew; remove what else was left half written beside it."""
    if folder.parent.is_dir():
        for leftover in folder.parent.glob(".step-*"):
            shutil.rmtree(leftover)
    folder.mkdir(parents=True)


def put_in_place(aside: Path, place: Path, numbers: Mapping[str, Any]) -> None:
    """Complete a snapshot whose tensors lie there and are synced, and give it its name."""
    with (aside / STATE_FILE).open("w", encoding="utf-8") as file:
        json.dump(dict(numbers), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    sync(aside)
    if place.exists():
        shutil.rmtree(place)
    aside.rename(place)
    sync(place.parent)


def storable(tensor: Tensor) -> Tensor:
    """Return a tensor as safetensors takes it: without gaps in memory."""
    return tensor if isinstance(tensor, DTensor) else tensor.contiguous()


@contextmanager
def alone_is_fine() -> Iterator[None]:
    """Let a process that was not joined to others read and write without a warning about that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def sync(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    """Put what went wrong in a few words."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
