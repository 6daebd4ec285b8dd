import json
import sys
from pathlib import Path

import pytest

from training.run.tracking import MetricsLog, TrackingError, read_records


def test_records_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write("train", 1, loss=2.5, lr=0.1)
        assert json.loads(path.read_text()) == {"kind": "train", "step": 1, "loss": 2.5, "lr": 0.1}
        log.write("valid", 1, loss=3.0)
    assert path.read_text() == log.to_jsonl()


def test_a_series_holds_one_metric_of_one_kind() -> None:
    log = MetricsLog()
    log.write("train", 1, loss=2.5)
    log.write("valid", 1, loss=3.0, accuracy=0.5)
    log.write("train", 2, loss=2.0)
    assert log.series("train", "loss") == ([1, 2], [2.5, 2.0])
    assert log.series("valid", "accuracy") == ([1], [0.5])


@pytest.mark.parametrize("torn", ["", '{"kind": "train", "step": 5, "lo', '{"kind": "train", "step": 5}'])
def test_a_resumed_run_goes_on_behind_its_snapshot(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(1, 5):
            log.write("train", step, loss=step)
            if step % 2 == 0:
                log.write("valid", step, loss=step)
    with path.open("a") as file:
        file.write(torn)  # killed in the middle of a line
    with MetricsLog(path, resume_step=2) as log:
        assert log.last_step == 2
        for step in range(3, 6):
            log.write("train", step, loss=step)
        log.sync()
        assert [record["step"] for record in read_records(path)] == [1, 2, 2, 3, 4, 5]
    assert path.read_text() == log.to_jsonl()


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        with MetricsLog(path) as log:
            log.write("train", 1, loss=2.5)
    assert len(list(read_records(path))) == 1
    with MetricsLog(tmp_path / "none.jsonl", resume_step=3) as log:  # killed before anything was written
        log.write("train", 4, loss=2.5)
    assert len(list(read_records(tmp_path / "none.jsonl"))) == 1


@pytest.mark.parametrize("line", ["hello", "[]", '{"step": 1}', '{"kind": "train", "step": "1"}', ""])
def test_other_files_are_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n' + line + "\n")
    with pytest.raises(TrackingError, match="line 2 is no record"):
        MetricsLog(path, resume_step=3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_receives_the_same_and_forgets_what_is_repeated(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tensorboard=tmp_path) as log:
        for step in range(1, 5):
            log.write("train", step, loss=step / 2)
    with MetricsLog(tensorboard=tmp_path, resume_step=2) as log:
        log.write("train", 3, loss=7.0)
        log.write("sample", 3, text="ahoy")
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.5), (2, 1.0), (3, 7.0)]
    assert "sample/text/text_summary" in events.Tags()["tensors"]


def test_tensorboard_that_is_not_installed_is_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrackingError, match=r"--tensorboard: .*groundup\[tensorboard\]"):
        MetricsLog(tensorboard=tmp_path)


def test_a_folder_of_events_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"^--tensorboard: .* cannot be written to: Not a directory"):
        MetricsLog(tensorboard=tmp_path / "file" / "events")
