import json
from pathlib import Path

import pytest

from training.config.arena import ArenaConfig
from training.evaluation.arena_command import run


def test_votes_become_a_ranking_with_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = tmp_path / "votes.jsonl"
    votes.write_text("\n".join(json.dumps(pair) for pair in [["good", "bad"]] * 8 + [["bad", "good"]] * 2))
    run(ArenaConfig(votes=votes, out=tmp_path / "out", resamples=50))
    table = capsys.readouterr().out
    assert table.index("| good |") < table.index("| bad |")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (rows,) = [table["rows"] for table in report["sections"]["arena"]["tables"]]
    assert rows[0]["model"] == "good"
    assert rows[0]["win rate"] == 0.8
    assert rows[0]["Bradley-Terry"] - rows[1]["Bradley-Terry"] == pytest.approx(240, abs=3)
    assert report["sections"]["arena"]["figures"]["num_votes"] == 10
    for name in ("ratings.png", "win-rates.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
        assert name in (tmp_path / "out" / "report.md").read_text()


def test_groups_that_never_met_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    votes = tmp_path / "votes.jsonl"
    votes.write_text('["a", "b"]\n["c", "d"]\n["a", "a"]\n')
    run(ArenaConfig(votes=votes, resamples=10))  # with a report or without
    assert "which never met: a, b; c, d" in caplog.text
    assert "1 votes are not used: both answers are the same model's" in caplog.text
    run(ArenaConfig(votes=votes, out=tmp_path / "out", resamples=10))
    assert "which never met: a, b; c, d" in (tmp_path / "out" / "report.md").read_text()
