"""The table of regimes: every cell once, kept, never trained again."""

import json
import tomllib
from pathlib import Path

import pytest

import groundup
from training.bench.regimes import merged, run
from training.bench.settings import ClassifyBenchSettings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoints: Path) -> ClassifyBenchSettings:
    rows = [f"win prize number {i} now\tspam" for i in range(20)] + [f"see you at {i}\tham" for i in range(20)]
    (tmp_path / "messages.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    (tmp_path / "recipe.toml").write_text(
        f'data = "{tmp_path}/messages.tsv"\nout = "runs/x"\nsteps = 2\nbatch_size = 4\n'
        'device = "cpu"\n[optim]\nlr = 1e-3\n'
    )
    return ClassifyBenchSettings(
        recipe=tmp_path / "recipe.toml",
        base=tiny_checkpoints / "tiny-chat",
        out=tmp_path / "cells.jsonl",
        rows={"head": {"trainable": "head"}, "LoRA": {"lora": {"rank": 2}, "optim": {"lr": 1e-2}}},
        seeds=(1, 2),
    )


def test_every_cell_is_trained_once_and_a_stopped_bench_goes_on(
    settings: ClassifyBenchSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings.model_copy(update={"seeds": (1,)}))
    with settings.out.open("a") as file:
        file.write('{"row": "cut sho')  # a kill leaves no end of the line
    before = settings.out.read_text()
    run(settings)
    after = settings.out.read_text()
    assert after.startswith(before)
    cells = [json.loads(line) for line in after.splitlines() if not line.startswith('{"row": "cut')]
    keys = [(cell["row"], cell["sight"], cell["seed"], cell["digest"]) for cell in cells]
    assert len(set(keys)) == len(keys)
    trained = [cell for cell in cells if cell["num_trained"]]
    assert len(trained) == 2 * 2 * 2
    assert {cell["num_trained"] for cell in trained if cell["row"] == "head"} == {2 * 32}
    table = capsys.readouterr().out.split("Hardware")[-1]
    for row in (
        "| head | whole text | 64 |",
        "| LoRA | first token |",
        "| TF-IDF + logistic regression | whole text | - |",
    ):
        assert row in table
    run(settings)
    assert settings.out.read_text() == after


def test_other_settings_are_other_cells(settings: ClassifyBenchSettings) -> None:
    one = settings.model_copy(
        update={"seeds": (1,), "sights": ("first token",), "rows": {"head": {"trainable": "head"}}}
    )
    run(one)
    run(one.model_copy(update={"rows": {"head": {"trainable": "head", "steps": 3}}}))
    assert len(settings.out.read_text().splitlines()) == 2


def test_a_row_that_makes_no_sense_is_refused_by_name(settings: ClassifyBenchSettings) -> None:
    with pytest.raises(ValueError, match=r"--rows: odd: .*should be greater than"):
        run(settings.model_copy(update={"rows": {"odd": {"steps": 0}}}))
    with pytest.raises(ValueError, match=r"--recipe: gone.toml"):
        run(settings.model_copy(update={"recipe": Path("gone.toml")}))


def test_changes_reach_into_tables() -> None:
    assert merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}) == {"a": 1, "b": {"c": 4, "d": 3}}


def test_the_recipe_of_the_table_of_regimes_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = "training/recipes/spam-regimes.toml"
    parsed = groundup.parse(ClassifyBenchSettings, ["--config", path], prog="groundup bench-classify")
    assert parsed.rows == tomllib.loads(Path(path).read_text())["rows"]
    assert parsed.recipe.exists()
