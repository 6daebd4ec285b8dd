import json
import math
from pathlib import Path

import pytest

from training.evaluation.report import Picture, Report, ReportError, Section, Table, check_place

SECTION = Section(
    "answers",
    "Answers",
    {"acc": 0.25, "acc_low": 0.125, "acc_high": 0.5, "num_answers": 12345, "mean_grade": math.nan},
    text="A remark.",
    tables=[Table("Some rows.", ("question", "score"), [("a | b\nc", 0.123456)])],
    pictures=[Picture("one.png", "One", b"\x89PNG")],
    files={"more.jsonl": b"{}\n"},
)
REPORT = Report("A model", {"checkpoint": "runs/a"}, [SECTION])


def test_a_report_shows_figures_with_their_intervals_tables_and_pictures(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "new" / "folder")
    text = (tmp_path / "new" / "folder" / "report.md").read_text()
    assert text.startswith("# A model\n\n- checkpoint: runs/a\n\n## Answers\n\n| measure | value |")
    assert "| accuracy, by the likeliest answer | 0.25 (0.125 to 0.5) |" in text
    assert "| answers | 12,345 |" in text
    assert "| mean grade | - |" in text
    assert "Some rows.\n\n| question | score |\n| --- | --- |\n| a \\| b c | 0.1235 |" in text
    assert "![One](one.png)" in text
    assert (tmp_path / "new" / "folder" / "one.png").read_bytes() == b"\x89PNG"
    assert (tmp_path / "new" / "folder" / "more.jsonl").exists()


def test_the_json_holds_all_digits_and_is_strict(tmp_path: Path) -> None:
    REPORT.write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["sections"]["answers"]["figures"]["acc_low"] == 0.125
    assert content["sections"]["answers"]["figures"]["mean_grade"] is None
    assert content["sections"]["answers"]["tables"][0]["rows"] == [{"question": "a | b\nc", "score": 0.123456}]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"--out: .*file cannot be written"):
        REPORT.write(tmp_path / "file")


def test_a_place_that_cannot_take_a_report_is_refused_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_place(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"--out: .*file is a file; give a folder"):
        check_place(tmp_path / "file" / "folder")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ReportError, match=r"--out: .*model holds a checkpoint; give the report a folder of its own"):
        check_place(tmp_path / "model")
    monkeypatch.setattr("os.access", lambda place, mode: False)  # root may write anywhere
    with pytest.raises(ReportError, match=r"--out: .*new cannot be written: no right to write in"):
        check_place(tmp_path / "new")
