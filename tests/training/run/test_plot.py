import json
from pathlib import Path

import pytest

from training.run.plot import PlotConfig, find_metrics, name_runs, run
from training.run.tracking import TrackingError

RECORDS = [{"kind": "train", "step": step, "loss": 3 / step, "lr": 0.1} for step in range(1, 6)]


def write_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return folder


def test_runs_of_every_kind_are_drawn_into_one_picture(tmp_path: Path) -> None:
    finished, unfinished = write_run(tmp_path / "a"), write_run(tmp_path / "b.run")
    out = tmp_path / "pictures" / "curves.png"
    run(PlotConfig(runs=(finished, unfinished, tmp_path / "b", finished / "metrics.jsonl"), out=out))
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_run_is_found_by_any_of_its_places(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "boat.run")
    for place in (folder, folder / "metrics.jsonl", tmp_path / "boat"):
        assert find_metrics(place) == folder / "metrics.jsonl"


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"boat: no metrics of a run; give"):
        run(PlotConfig(runs=(tmp_path / "boat",), out=tmp_path / "a.png"))
    with pytest.raises(TrackingError, match=r"--out: .* cannot be written"):
        run(PlotConfig(runs=(write_run(tmp_path / "c"),), out=tmp_path / "c"))


def test_names_are_as_long_as_they_must_be() -> None:
    assert name_runs([Path("/x/runs/a"), Path("/x/runs/b.run")]) == ["a", "b"]
    assert name_runs([Path("/x/first/a"), Path("/x/second/a")]) == ["first/a", "second/a"]
    assert name_runs([Path("/x/a"), Path("/x/a")]) == ["a", "a"]
