"""Chains of runs: checked before they begin, gone through in order, gone on with; and the recipe of one, made small."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import groundup
from model.directory import read_checkpoint
from training.chain import ServerError, run, serving
from training.config.chain import VERBS, ChainConfig

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "chain.toml"

TEXT = "\n".join(f"In {1800 + i} the ship met {i} others and went on." for i in range(80))

RECORDS = [
    {"instruction": f"Add one to {i}.", "input": "" if i % 2 else "Please.", "output": f"{i + 1}"} for i in range(40)
]


def chain(*stages: dict[str, Any], **shared: Any) -> ChainConfig:
    return ChainConfig.model_validate({"stages": stages, "shared": shared})


def test_a_stage_is_what_its_verb_is() -> None:
    assert {name: (verb.config, verb.run) for name, verb in groundup.VERBS.items() if name in VERBS} == VERBS


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"verb": "sing"}], "stage 1: verb 'sing' is none of pretrain, "),
        ([{"out": "x"}], "stage 1: verb None"),
        ([{"verb": "pretrain", "out": "x"}], r"stage 1 \(pretrain\): --data: required"),
        (
            [{"verb": "pretrain", "data": "a.txt", "out": "x"}, {"verb": "instruct", "loss_on": "all"}],
            r"stage 2 \(instruct\): --out: required",
        ),
        (
            [{"verb": "instruct", "data": "a.json", "base": "b", "out": "x", "loss_on": "all"}],
            r"stage 1 \(instruct\): --loss-on: Input should be 'answers' or 'everything'",
        ),
        (
            [{"verb": "instruct", "data": "a.json", "base": "b", "out": "x", "test_data": "c", "test_fraction": 0.1}],
            r"stage 1 \(instruct\): --test-fraction: --test-data is the test part",
        ),
        ([{"verb": "judge", "responses": "a", "out": "b", "model": "m", "base_url": "{server}"}], "needs `serve`"),
        ([{"verb": "pretrain", "data": "a", "out": "x", "stepps": 3}], r"--stepps: unknown setting"),
        ([{"verb": "judge", "serve": "x"}], "serve must be a list"),
        ([], "at least 1 item"),
    ],
)
def test_a_stage_that_cannot_be_is_named_before_the_first_begins(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain(*stages)


def test_what_no_stage_makes_must_be_there(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(TEXT)
    base = {"verb": "pretrain", "data": [str(text)], "out": str(tmp_path / "base")}
    assistant = {"verb": "instruct", "data": str(tmp_path / "none.json"), "base": str(tmp_path / "base"), "out": "x"}
    with pytest.raises(ValueError, match=r"stage 2 \(instruct\): --data: .*none\.json does not exist, and no stage"):
        run(chain(base, assistant))
    assert not (tmp_path / "base").exists()
    with pytest.raises(ValueError, match=r"stage 1 \(instruct\): --base: "):
        run(chain({**assistant, "data": str(text)}))


def test_what_is_finished_is_not_kept_when_what_it_was_made_of_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.json").write_text(json.dumps(RECORDS))
    base = {"verb": "pretrain", "data": [str(tmp_path / "a.txt")], "out": str(tmp_path / "base")}
    assistant = {"verb": "instruct", "data": str(tmp_path / "a.json"), "base": str(tmp_path / "base")}
    assistant["out"] = str(tmp_path / "assistant")
    (tmp_path / "assistant").mkdir()
    with pytest.raises(ValueError, match=r"stage 2 \(instruct\): --out: .*assistant was made of an earlier .*base"):
        run(chain(base, assistant))
    assert not (tmp_path / "base").exists()


def test_two_stages_do_not_share_a_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    base = {"verb": "pretrain", "data": [str(tmp_path / "a.txt")], "out": str(tmp_path / "base")}
    with pytest.raises(ValueError, match=r"stage 2 \(pretrain\): --out: .*base is made by a stage before it"):
        run(chain(base, {**base, "steps": 3}))


def test_an_error_of_a_stage_names_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "base").mkdir()
    (tmp_path / "chain.toml").write_text(
        f'[[stages]]\nverb = "instruct"\ndata = "{tmp_path}/a.json"\nbase = "{tmp_path}/base"\nout = "{tmp_path}/x"\n'
    )
    assert groundup.main(["chain", "--config", str(tmp_path / "chain.toml")]) == 2
    assert re.search(r"error: stage 1 \(instruct\): .*config.json: no such file", capsys.readouterr().err)


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(ServerError, match="no/such/model"), serving(["no/such/model"]):
        pytest.fail("it serves nothing")


def small(stage: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make a stage of the recipe short, and let it read and write in a folder."""
    placed = {
        name: place(value, folder)
        if name in ("data", "base", "out", "checkpoint", "responses", "without", "serve")
        else value
        for name, value in stage.items()
        if name != "valid_data"
    }
    if stage["verb"] == "evaluate":
        return {**placed, "device": "cpu", "max_tokens": 8}
    if stage["verb"] == "judge":
        return placed
    brief = {"steps": 2, "batch_size": 2, "eval_interval": 1, "device": "cpu", "num_threads": 1}
    if stage["verb"] == "pretrain":
        brief |= {"sample_tokens": 2, "stride": 64}
        brief |= (
            {"model": {**stage["model"], "block_size": 1024, "n_layer": 1, "n_head": 2, "n_embd": 32}}
            if ("model" in stage)
            else {}
        )
        brief |= {"vocab_size": 300} if "vocab_size" in stage else {}
    elif stage["verb"] == "instruct":
        brief |= {"sample_answers": 1, "sample_tokens": 4, "answer_tokens": 8}
        if stage["out"].endswith("judge"):
            brief |= {"steps": 60, "batch_size": 4, "optim": {"lr": 1e-2}, "data": str(folder / "judge.json")}
    return {**placed, **brief}


def place(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [place(each, folder) for each in value]
    return re.sub("^(runs/chain|data/book-instructions|data|training/recipes)/", f"{folder}/", value)


@pytest.mark.slow
def test_the_recipe_goes_from_nothing_to_grades(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gutenberg", "the-verdict"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.txt").write_text(f"{name} {number}: {TEXT}")
    (tmp_path / "instruction-data.json").write_text(json.dumps(RECORDS))
    pairs = [{**record, "chosen": record["output"], "rejected": "no"} for record in RECORDS]
    (tmp_path / "instruction-data-with-preference.json").write_text(json.dumps(pairs))
    numbers = [{"instruction": f"{i}", "output": "50"} for i in range(10)]
    (tmp_path / "judge.json").write_text(json.dumps(numbers))
    config = chain(*(small(stage, tmp_path) for stage in tomllib.loads(RECIPE.read_text())["stages"]))

    run(config)
    assert [read_checkpoint(tmp_path / name).kind for name in ("base", "domain", "assistant", "preferred")] == [
        *("base", "base", "chat", "chat")
    ]
    answers = [
        [json.loads(line) for line in (tmp_path / name / "responses.jsonl").read_text().splitlines()]
        for name in ("assistant", "report")
    ]
    assert [each["messages"] for each in answers[0]] == [each["messages"] for each in answers[1]]
    assert len(answers[0]) == 4  # the book's share: a tenth, after those that train
    assert "Add one to 34." in answers[0][0]["messages"][0]["content"]
    for name, words in (("report", "rouge_l"), ("grades", "50")):
        assert words in (tmp_path / name / "report.json").read_text()

    capsys.readouterr()
    weights = (tmp_path / "preferred" / "model.safetensors").stat().st_mtime_ns
    run(config)
    assert (tmp_path / "preferred" / "model.safetensors").stat().st_mtime_ns == weights
