"""A hold on a run's folder, so that no second process writes there at the same time.

The system lets go of it with the process, however that ends. It knows a folder, not what a run keeps in it.
"""

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

LOCK_FILE = "lock"


class LockError(ValueError):
    """The folder is in use, or cannot be written to; the message says what to do."""


class RunLock:
    """While entered, may `take` a folder and keeps it to the end.

    A record lock, not `flock`: that would be passed on to forked workers, which may outlive a run that is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the folder, which exists, or take it again after it was made anew.

        Raises:
            LockError: another process has it, or it cannot be written to.
        """
        self._release()
        try:
            self._descriptor = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise LockError(f"--out: {self._folder} cannot be written to: {error.strerror}") from None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.pread(self._descriptor, 300, 0).decode(errors="replace") or "another process"
            raise LockError(
                f"--out: {self._folder} is in use by {owner}; wait until that has ended, or choose another place"
            ) from None
        except OSError:
            return  # a file system without locks
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()
