"""Whether the process is killed, the disk is full or the folder locked: the old directory stays, or the new one."""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model import replace
from model.checkpoint import save_checkpoint
from model.directory import CheckpointError, read_checkpoint
from model.replace import exchange, written_aside
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt

WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from model.replace import written_aside
for version in count():
    with written_aside(Path(sys.argv[1])) as aside:
        for name in "abc":
            (aside / name).write_text(str(version) * 5000)
    print(version, flush=True)
"""

DIE_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from model import replace
replace.exchange = lambda one, other: False  # as on a file system that cannot
rename, calls = os.rename, []
def rename_once(*names):
    if calls:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(names)
    rename(*names)
os.rename = rename_once
with replace.written_aside(Path(sys.argv[1])) as aside:
    (aside / "a").write_text("new")
"""


def write(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        (aside / "a").write_text(text)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_kill_at_any_moment_leaves_a_whole_directory(tmp_path: Path) -> None:
    path = tmp_path / "model"
    rng = random.Random(0)
    versions = []
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        contents = {(path / name).read_text() for name in "abc"}
        assert len(contents) == 1
        versions.append(contents.pop()[:3])
    assert len(set(versions)) > 1
    write(path, "last")
    assert names(tmp_path) == {"model"}


def test_exchange_leaves_no_moment_without_the_name(tmp_path: Path) -> None:
    write(tmp_path / "one", "1")
    write(tmp_path / "other", "2")
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "one" / "a").read_text() == "2"
    assert (tmp_path / "other" / "a").read_text() == "1"
    assert not exchange(tmp_path / "one", tmp_path / "absent")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(replace, "exchange", lambda one, other: False)
    write(tmp_path / "model", "old")
    (tmp_path / "model" / "b").write_text("only in the old one")
    write(tmp_path / "model", "new")
    assert names(tmp_path) == {"model"}
    assert names(tmp_path / "model") == {"a"}
    assert (tmp_path / "model" / "a").read_text() == "new"


def test_a_death_between_two_renames_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write(path, "old")
    died = subprocess.run([sys.executable, "-c", DIE_BETWEEN_RENAMES, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert names(tmp_path) == {".model.old", ".model.new"}
    with pytest.raises(CheckpointError, match=r"rename \.model\.old back"):
        read_checkpoint(path)
    with pytest.raises(KeyError), written_aside(path):
        raise KeyError
    assert names(tmp_path) == {"model"}
    assert (path / "a").read_text() == "old"


@contextmanager
def nearly_full_disk(limit_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, which a full disk looks like to the writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def somebody_else() -> Iterator[None]:
    """Go on without root's rights, which no folder can refuse."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2"))
    save_checkpoint(tmp_path / "model", model, tokenizer, model_card="old")
    with (
        nearly_full_disk(50_000),
        pytest.raises(CheckpointError, match=r"cannot be written: .*what was there before is kept"),
    ):
        save_checkpoint(tmp_path / "model", model, tokenizer, model_card="new")
    assert names(tmp_path) == {"model"}
    assert (tmp_path / "model" / "README.md").read_text() == "old"
    read_checkpoint(tmp_path / "model")


def test_an_unwritable_folder_keeps_the_old_checkpoint(open_folder: Path, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2"))
    save_checkpoint(open_folder / "model", model, tokenizer, model_card="old")
    open_folder.chmod(0o555)
    with somebody_else(), pytest.raises(CheckpointError, match=r"cannot be written: .*Permission denied"):
        save_checkpoint(open_folder / "model", model, tokenizer, model_card="new")
    open_folder.chmod(0o755)
    assert names(open_folder) == {"model"}
    assert (open_folder / "model" / "README.md").read_text() == "old"


def test_a_link_goes_on_leading_to_what_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "run")
    for text in ("one", "two", "three"):
        write(link, text)
        assert (tmp_path / "run" / "a").read_text() == text
        assert names(tmp_path) == {"latest", "run"}
        assert link.is_symlink()
