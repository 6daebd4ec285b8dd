from pathlib import Path

import pytest

from training.config.run import RunConfig
from training.run.folder import OutputError, RunFolder, is_finished, run_folder
from training.run.stop import StoppedError


def make_run(out: Path, **changes: object) -> RunConfig:
    return RunConfig.model_validate({"out": out, "device": "cpu", **changes})


def interrupt(config: RunConfig, step: int = 7) -> RunFolder:
    """Leave the folder of a run behind that was killed after a snapshot."""
    with pytest.raises(KeyboardInterrupt):
        kill(config, step)
    return RunFolder(config.out.with_name(config.out.name + ".run"))


def kill(config: RunConfig, step: int) -> None:
    with run_folder(config) as folder:
        (folder.path / "snapshots" / f"step-{step:08d}").mkdir(parents=True)
        folder.metrics.write_text("{}\n")
        raise KeyboardInterrupt


def finish(config: RunConfig) -> None:
    """Leave a checkpoint behind, as far as its settings go."""
    config.out.mkdir()
    (config.out / "config.json").write_text("{}")
    (config.out / "run.toml").write_text(config.to_toml())


def test_the_folder_lasts_as_long_as_the_run(tmp_path: Path) -> None:
    with run_folder(make_run(tmp_path / "deep" / "out")) as folder:
        assert folder.path.is_dir()
    assert not folder.path.exists()


def fail(out: Path, *, has_metrics: bool = False, has_data: bool = False) -> None:
    with run_folder(make_run(out)) as folder:
        if has_metrics:
            folder.metrics.write_text("{}")
        if has_data:
            folder.data.mkdir()
        raise RuntimeError("the run went wrong")


def test_metrics_of_a_failed_run_stay(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "out", has_metrics=True)
    assert (tmp_path / "out.run" / "metrics.jsonl").exists()


def test_a_run_that_fails_before_it_did_anything_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_prepared_before_a_failure_is_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "out", has_data=True)
    with run_folder(make_run(tmp_path / "out", resume=True)) as folder:
        assert folder.data.exists()


def test_a_stopped_run_leaves_its_folder_and_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="training")
    with run_folder(make_run(tmp_path / "out")) as folder:
        (folder.path / "snapshots" / "step-00000003").mkdir(parents=True)
        raise StoppedError
    assert folder.path.exists()
    assert "stopped at step 3; the same command with --resume" in caplog.text


def test_a_checkpoint_is_replaced_only_on_request(tmp_path: Path) -> None:
    finish(make_run(tmp_path / "out"))
    with pytest.raises(OutputError, match="add --overwrite"), run_folder(make_run(tmp_path / "out")):
        pass
    with run_folder(make_run(tmp_path / "out", overwrite=True)):
        pass


def test_anything_but_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a checkpoint"), run_folder(make_run(out, overwrite=True)):
        pass


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"), run_folder(make_run(tmp_path / "file" / "out")):
        pass


def test_an_interrupted_run_is_not_lost_by_accident(tmp_path: Path) -> None:
    config = make_run(tmp_path / "out")
    folder = interrupt(config)
    with pytest.raises(OutputError, match="go on with --resume, or replace it with --overwrite"), run_folder(config):
        pass
    assert folder.resume_step == 7
    with run_folder(make_run(tmp_path / "out", overwrite=True)) as anew:
        assert not anew.is_resumable


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    interrupt(make_run(tmp_path / "out"))
    with run_folder(make_run(tmp_path / "out", resume=True)) as folder:
        assert folder.resume_step == 7
        assert folder.metrics.exists()


def test_without_a_snapshot_a_resumed_run_starts_afresh(tmp_path: Path) -> None:
    with run_folder(make_run(tmp_path / "out", resume=True)) as folder:
        assert folder.resume_step == 0


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"steps": 999}, "--steps"), ({"optim": {"lr": 0.5}}, "--optim.lr"), ({"ema": 0.9}, "--ema")],
)
def test_settings_that_would_change_the_result_are_refused_by_name(
    tmp_path: Path, changes: dict[str, object], flag: str
) -> None:
    interrupt(make_run(tmp_path / "out"))
    with pytest.raises(OutputError, match=f"^{flag}: "), run_folder(make_run(tmp_path / "out", resume=True, **changes)):
        pass


def test_how_and_where_a_resumed_run_computes_may_change(tmp_path: Path) -> None:
    interrupt(make_run(tmp_path / "out"))
    changes = {"num_threads": 1, "micro_batch_size": 2, "parallel": "fsdp", "save_interval": 5}
    with run_folder(make_run(tmp_path / "out", resume=True, **changes)) as folder:
        assert folder.resume_step == 7


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    config = make_run(tmp_path / "out")
    folder = interrupt(config)
    folder.must_match(data="a", tokenizer="b")  # nothing is known yet
    folder.must_match(data="a", tokenizer="b")
    with pytest.raises(OutputError, match="--tokenizer: not what the interrupted run"):
        folder.must_match(data="a", tokenizer="c")


def test_a_finished_run_needs_no_resuming(tmp_path: Path) -> None:
    config = make_run(tmp_path / "out", resume=True)
    assert not is_finished(config)
    interrupt(config)  # killed after its last snapshot, ...
    finish(config)  # and even after the checkpoint was written
    assert is_finished(config)
    assert not (tmp_path / "out.run").exists()
    with pytest.raises(OutputError, match="--steps: the checkpoint"):
        is_finished(make_run(tmp_path / "out", resume=True, steps=999))


def test_a_run_that_was_to_replace_a_checkpoint_still_may_when_it_goes_on(tmp_path: Path) -> None:
    finish(make_run(tmp_path / "out"))
    interrupt(make_run(tmp_path / "out", overwrite=True))
    config = make_run(tmp_path / "out", resume=True)
    assert not is_finished(config)
    with run_folder(config) as folder:
        assert folder.resume_step == 7
