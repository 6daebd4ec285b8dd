from pathlib import Path

import pytest

from training.run_folder import METRICS_FILE, OutputError, run_folder


def test_the_folder_lasts_as_long_as_the_run(tmp_path: Path) -> None:
    with run_folder(tmp_path / "deep" / "out", overwrite=False) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def fail(out: Path, *, has_metrics: bool) -> None:
    with run_folder(out, overwrite=False) as folder:
        if has_metrics:
            (folder / METRICS_FILE).write_text("{}")
        raise RuntimeError("the run went wrong")


def test_metrics_of_a_failed_run_stay(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "out", has_metrics=True)
    assert (tmp_path / "out.run" / METRICS_FILE).exists()


def test_a_run_that_fails_before_training_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "out", has_metrics=False)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="add --overwrite"), run_folder(out, overwrite=False):
        pass
    with run_folder(out, overwrite=True):
        pass


def test_anything_but_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a checkpoint"), run_folder(out, overwrite=True):
        pass


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"), run_folder(tmp_path / "file" / "out", overwrite=False):
        pass
