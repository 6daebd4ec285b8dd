"""The place that a preparation writes to: held by one run at a time, taken over from one that was ended, never stolen.

What lies in it, beside the plan that tells runs apart, is nothing to it.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from training.data.config import PrepareConfig
from training.data.errors import DataError
from training.data.shards import write_durably

logger = logging.getLogger(__name__)

PLAN = "plan.json"
"""What a folder was made from and how; the same plan gives the same bytes."""


def working_folder(out: Path) -> Path:
    """Return where work in progress lies."""
    out = out.absolute()  # `.` has no name
    return out.with_name(f"{out.name}.part")


def claim(config: PrepareConfig, plan: dict[str, Any]) -> bool:
    """Make the working folder, or take over that of an earlier run; False if all is done already.

    Raises:
        DataError: something else is in the way.
    """
    work = working_folder(config.out)
    for file, *_ in plan["files"]:
        if Path(file).is_relative_to(config.out.resolve()):
            raise DataError(f"--out: {config.out} holds {file}, which is to be read; choose another place")
    if config.overwrite:
        remove_earlier(config.out, work)
    if is_taken(config.out):
        check_earlier(config.out, plan, resume=config.resume)
        logger.info("%s is whole already", config.out)
        shutil.rmtree(work)  # all that a run ended in its last moment may have left
        return False
    if is_taken(work):
        check_earlier(work, plan, resume=config.resume)
    write_durably(work / PLAN, (json.dumps(plan, indent=2) + "\n").encode())
    (work / "pieces").mkdir(exist_ok=True)
    for rest in (work / "pieces").glob("*.part"):
        rest.unlink()  # of a run that was killed
    return True


@contextmanager
def hold(work: Path) -> Iterator[None]:
    """Keep other runs from a working folder, which is made if it is not there and removed if it stays empty.

    Raises:
        DataError: another run has it, or it cannot be made.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"--out: {error.filename}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"--out: another run is writing to {work}; wait for it, or choose another place") from None
    try:
        yield
    finally:
        with suppress(OSError):
            work.rmdir()
        os.close(handle)


def is_taken(place: Path) -> bool:
    """Say whether a place holds more than a run leaves that is killed before it has written its plan."""
    if not place.is_dir():
        return place.exists()
    return any(not (path.name.startswith(f"{PLAN}.") and path.suffix == ".part") for path in place.iterdir())


def remove_earlier(out: Path, work: Path) -> None:
    """Remove what an earlier run has written, and nothing else; the working folder stays, empty."""
    for place in (out, work):
        if is_taken(place) and not (place / PLAN).exists():
            raise DataError(f"--out: {place} exists and holds something else; choose another place")
    shutil.rmtree(out, ignore_errors=True)
    for path in sorted(work.iterdir(), key=lambda path: path.name == PLAN):  # the plan, by which it is known, goes last
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_earlier(place: Path, plan: dict[str, Any], *, resume: bool) -> None:
    """Refuse to go on with another run's work.

    Raises:
        DataError: naming what differs.
    """
    if not resume:
        raise DataError(f"--out: {place} exists; add --resume to go on with it, or --overwrite to start afresh")
    try:
        earlier = json.loads((place / PLAN).read_bytes())
    except (OSError, ValueError):
        raise DataError(f"--resume: {place} holds no {PLAN}; choose another place for --out") from None
    if differing := [name for name in plan if earlier.get(name) != plan[name]]:
        raise DataError(
            f"--resume: {place} was made with other {', '.join(differing)}; add --overwrite to start afresh"
        )
