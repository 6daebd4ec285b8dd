import json
from pathlib import Path

from training.tracking import MetricsLog


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
