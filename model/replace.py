"""A directory takes the place of another in one step: written beside it, synced, exchanged. It knows no file in it."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RENAME_EXCHANGE = 2
"""Flag of renameat2(2): both names exist before and after."""
AT_FDCWD = -100
"""Relative paths count from the working directory (openat(2))."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a fresh directory that takes the place of `path` when the block ends well and vanishes when it does not.

    Whenever the process dies, `path` holds the old directory or the new one, whole. Where the file system cannot
    exchange two names at once, there is a moment between two renames when neither has the name; the next call repairs
    what a death in that moment leaves. Where `path` is a link, the directory it leads to is replaced.

    Raises:
        OSError: the directory cannot be written; `path` is as it was.
    """
    path = path.resolve()
    aside, replaced = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    _restore(path, replaced)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for file in aside.rglob("*"):
            _sync(file)
        _sync(aside)
        if not path.exists():
            aside.rename(path)
        elif not exchange(aside, path):
            path.rename(replaced)
            aside.rename(path)
        _sync(path.parent)
    finally:
        _restore(path, replaced)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2, Linux 3.15); False where system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
    return bool(renameat2(*names, RENAME_EXCHANGE) == 0)


def _restore(path: Path, replaced: Path) -> None:
    if replaced.exists() and not path.exists():
        replaced.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
