"""Where a run writes while it goes on, and what must hold before it starts or goes on.

Everything lies in `OUT.run` beside the checkpoint to be: settings, metrics, prepared tokens, snapshots and the best
weights so far, which can be served from there. The checkpoint itself is written elsewhere, at the end, and then the
folder goes. A run that was interrupted leaves it, and `--resume` goes on from it.
"""

import json
import logging
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config.run import RunConfig
from training.data.errors import DataError, UnfinishedError
from training.machine.parallel import World
from training.run.lock import RunLock
from training.run.snapshots import Snapshots
from training.run.sources import SOURCES_FILE, source_digests
from training.run.stop import StoppedError

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
"""Written while the run goes on, and kept in the checkpoint."""

SETTINGS_FILE = "run.toml"
"""The settings of the run, here and in the checkpoint."""

INPUTS_FILE = "inputs.json"
"""Digests of the data and of what else the run starts from."""

FREE_SETTINGS = {
    *("out", "overwrite", "resume", "save_interval", "keep_last", "tensorboard"),
    *("sample_prompts", "sample_tokens", "sample_answers", "sample_temperature"),
    "verify_data",
    *("device", "num_threads", "parallel", "micro_batch_size", "recompute", "compile"),
}
"""Settings that a resumed run may change: they decide how and where it computes, not what."""


class OutputError(ValueError):
    """The place for the result cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    keep_last: int = 2

    @property
    def metrics(self) -> Path:
        """File of the metrics."""
        return self.path / METRICS_FILE

    @property
    def data(self) -> Path:
        """Folder of what is prepared from texts."""
        return self.path / "data"

    def snapshots(self, stage: str = "") -> Snapshots:
        """Return the snapshots of the run, or of a stage before it."""
        return Snapshots(self.path / stage / "snapshots", self.keep_last)

    @property
    def resume_step(self) -> int:
        """Step that the run goes on from."""
        last = self.snapshots().last()
        return last.step if last is not None else 0

    @property
    def is_resumable(self) -> bool:
        """Whether there is any snapshot to go on from."""
        return any(self.path.glob("**/snapshots/step-*"))

    def must_match(self, **inputs: str) -> None:
        """Remember digests of what the run reads, by flag; a resumed run must read the same.

        Raises:
            OutputError: it does not.
        """
        World.current().alone(lambda: self._match(inputs))

    def _match(self, inputs: dict[str, str]) -> None:
        place = self.path / INPUTS_FILE
        known = json.loads(place.read_text("utf-8")) if place.exists() and self.is_resumable else inputs
        for name in inputs:
            if known.get(name) != inputs[name]:
                raise OutputError(
                    f"--{name}: not what the interrupted run in {self.path} was reading; "
                    "give that again, or start anew with --overwrite"
                )
        place.write_text(json.dumps(inputs, indent=2), encoding="utf-8")


@contextmanager
def run_folder(config: RunConfig) -> Iterator[RunFolder]:
    """Yield the folder of a run, fresh or as the interrupted run left it; it is removed when the run ends well.

    After a failure, or after `StoppedError`, which ends here, it stays if there is anything in it to go on from or to
    read.

    Raises:
        OutputError: `out` is taken, an interrupted run is in the way or had other settings, or the folder cannot be
            made.
        LockError: another process runs there.
    """
    folder = RunFolder(folder_of(config.out), config.keep_last)
    with RunLock(folder.path) as lock:
        World.current().alone(lambda: prepare(folder, config, lock))
        with kept_or_removed(folder):
            yield folder


@contextmanager
def kept_or_removed(folder: RunFolder) -> Iterator[None]:
    """Decide about a folder when the run in it ends, as `run_folder` says."""
    world = World.current()
    try:
        yield
    except StoppedError:
        best = folder.path / "best"
        meanwhile = f"; the best weights so far can be served from {best}" if best.exists() else ""
        logger.info("stopped at step %d; the same command with --resume goes on%s", folder.resume_step, meanwhile)
        return
    except BaseException as error:
        is_text_at_fault = isinstance(error, DataError) and not isinstance(error, UnfinishedError)
        has_data = folder.data.exists() and not is_text_at_fault
        if world.is_first and not (folder.is_resumable or folder.metrics.exists() or has_data):
            shutil.rmtree(folder.path)
        raise
    if world.is_first:
        shutil.rmtree(folder.path)


def folder_of(out: Path) -> Path:
    """Return the place of the folder of a run that is to make `out`."""
    return out.with_name(out.name + ".run")


def is_finished(config: RunConfig) -> bool:
    """Say whether the run that is to go on has already come to its end, be it just before it was interrupted.

    Raises:
        OutputError: there is a checkpoint, but one of other settings or other data.
        LockError: another process is about to come to that end.
    """
    folder = RunFolder(folder_of(config.out))
    stored, unfinished = read_settings(config.out), read_settings(folder.path)
    if not config.resume or config.overwrite or stored is None:
        return False
    if folder.is_resumable and (unfinished or {}).get("overwrite"):
        return False  # begun to replace that checkpoint
    must_be_same(config, stored, f"the checkpoint {config.out} was made with")
    must_have_read_same(config)
    if folder.path.is_dir():
        with RunLock(folder.path) as lock:
            lock.take()
            shutil.rmtree(folder.path, ignore_errors=True)
    return True


def prepare(folder: RunFolder, config: RunConfig, lock: RunLock) -> None:
    """Make and take the folder of a run, or clear what does not belong to it out of the way.

    Raises:
        OutputError: see `run_folder`.
        LockError: likewise.
    """
    if folder.path.is_dir():
        lock.take()
    path, interrupted = folder.path, read_settings(folder.path)
    goes_on = config.resume and interrupted is not None
    if folder.is_resumable and not config.resume and not config.overwrite:
        raise OutputError(
            f"--out: {path} holds an interrupted run; go on with --resume, or replace it with --overwrite"
        )
    if goes_on and folder.is_resumable:
        must_be_same(config, interrupted or {}, f"the interrupted run in {path} has")
    check_place(config.out, may_replace=config.overwrite or (goes_on and bool((interrupted or {}).get("overwrite"))))
    goes_on = goes_on and (folder.is_resumable or differences(config, interrupted or {}) == [])
    try:
        if not goes_on:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            lock.take()
            (path / SETTINGS_FILE).write_text(config.to_toml(), encoding="utf-8")
        (path / SOURCES_FILE).write_text(json.dumps(source_digests(config), indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out: {path} cannot be made: {error.strerror}") from None


def check_place(out: Path, *, may_replace: bool) -> None:
    """Refuse to write a checkpoint over what must stay.

    Raises:
        OutputError: `out` exists, and may not be replaced or is no checkpoint.
    """
    if out.exists():
        if not may_replace:
            raise OutputError(f"--out: {out} exists; choose another place or add --overwrite")
        if not (out / "config.json").exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"--out: {out} exists and is not a checkpoint; choose another place")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a run wrote into a folder, or None where there are none to be read."""
    try:
        return tomllib.loads((folder / SETTINGS_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def must_be_same(config: RunConfig, settings: dict[str, Any], whose: str) -> None:
    """Refuse settings that would lead to another result.

    Raises:
        OutputError: naming the first flag that differs.
    """
    for flag, theirs, ours in differences(config, settings):
        have = f"{whose} {theirs!r}" if theirs is not None else f"{whose} none"
        raise OutputError(f"{flag}: {have}, not {ours!r}; give the same to resume, or start anew with --overwrite")


def must_have_read_same(config: RunConfig) -> None:
    """Refuse to call a run finished whose data or base have changed since; what is gone has not.

    Raises:
        OutputError: naming the first flag that leads to something else.
    """
    try:
        known = json.loads((config.out / SOURCES_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return  # nothing is known
    for flag, digest in source_digests(config).items():
        if known.get(flag, digest) != digest:
            raise OutputError(
                f"{flag}: not what the checkpoint {config.out} was made of; give that again, or start anew with "
                "--overwrite"
            )


def differences(config: RunConfig, settings: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return flag, stored and present value of every setting that decides the result and is not the same."""
    theirs, ours = flat(settings), flat(tomllib.loads(config.to_toml()))
    names = [name for name in ours | theirs if name not in FREE_SETTINGS]
    return [
        (f"--{name.replace('_', '-')}", theirs.get(name), ours.get(name))
        for name in names
        if theirs.get(name) != ours.get(name)
    ]


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of tables under dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return found
