"""Two real processes that want one folder."""

import os
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.forked import CONTEXT, Forked
from tests.training.run.test_folder import finish, make_run
from training.config.run import RunConfig
from training.run.folder import is_finished, run_folder
from training.run.lock import LockError, RunLock


def hold(out: Path, theirs: Connection) -> None:
    """Be in the folder of a run until the other end of the connection is closed."""
    with run_folder(RunConfig(out=out, device="cpu")):
        if os.fork():  # a worker, which outlives it
            theirs.send("here")
        with suppress(EOFError):
            theirs.recv()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Forked]:
    """A run to `out` in a process of its own, with a worker that ends when the test does."""
    ours, theirs = CONTEXT.Pipe()
    with ours:
        process = Forked(hold, tmp_path / "out", theirs, log=tmp_path / "other.log")
        theirs.close()
        assert ours.recv() == "here"
        yield process
        process.kill()


@pytest.mark.parametrize("changes", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_second_run_to_the_same_place_is_refused_and_harms_nothing(
    tmp_path: Path, other: Forked, changes: dict[str, object]
) -> None:
    settings = (tmp_path / "out.run" / "run.toml").read_text()
    message = f"--out: .*out.run is in use by process {other.pid} on "
    with pytest.raises(LockError, match=message), run_folder(make_run(tmp_path / "out", **changes)):
        pass
    assert (tmp_path / "out.run" / "run.toml").read_text() == settings


def test_a_run_that_is_coming_to_its_end_is_left_to_it(tmp_path: Path, other: Forked) -> None:
    config = make_run(tmp_path / "out", resume=True)
    finish(config)
    with pytest.raises(LockError, match=f"process {other.pid}"):
        is_finished(config)
    assert (tmp_path / "out.run").exists()


def test_a_killed_run_lets_go_though_its_workers_live(tmp_path: Path, other: Forked) -> None:
    other.kill()
    other.wait()
    with run_folder(make_run(tmp_path / "out")) as folder:
        assert folder.path.exists()


def test_a_folder_that_cannot_be_written_to_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with RunLock(tmp_path) as lock, pytest.raises(LockError, match="cannot be written to: Is a directory"):
        lock.take()
