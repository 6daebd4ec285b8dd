"""The recipes say what runs: every key is known, every command in a comment parses, and each runs when made small."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import groundup
from model.chat import DEFAULT_TEMPLATE
from model.checkpoint import save_checkpoint
from model.directory import read_checkpoint
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "training" / "recipes").glob("*.toml"))

SMALL: dict[str, Any] = {
    "steps": 2,
    "batch_size": 2,
    "micro_batch_size": 1,
    "eval_interval": 1,
    "save_interval": 2,
    "eval_tokens": 64,
    "sample_tokens": 2,
    "stride": 8,
    "valid_fraction": 0.2,
    "num_threads": 1,
    "device": "cpu",
    "compile": False,
    "sample_answers": 1,
    "answer_tokens": 4,
    "warmup_lm_steps": 2,
}
"""What makes a run short, whatever it trains; all else is as the recipe has it."""

SMALL_MODEL = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}


def read(recipe: Path) -> dict[str, Any]:
    return tomllib.loads(recipe.read_text())


def commands(recipe: Path) -> list[list[str]]:
    """Return the groundup commands in a recipe's comments, without what starts them on several processes."""
    lines = re.findall(r"^# +(groundup .*|torchrun .*)$", recipe.read_text(), re.MULTILINE)
    return [shlex.split(re.sub(r"^torchrun .* -m groundup", "groundup", line)) for line in lines]


def own_command(recipe: Path) -> tuple[str, list[str]]:
    """Return the verb and the flags of the first command that runs a recipe."""
    for _, *words in commands(recipe):
        if f"training/recipes/{recipe.name}" in words:
            return groundup.split_verb(words)
    raise AssertionError(f"no command in {recipe.name} runs it")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_command_in_a_recipe_parses_and_one_runs_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for _, *words in commands(recipe):
        parse(*groundup.split_verb(words))
    own = parse(*own_command(recipe))
    for name, value in read(recipe).items():
        if name != "data":  # a command may name its own text
            expected = value if not isinstance(value, dict) else set(value)
            found = getattr(own, name)
            named = found.model_fields_set if isinstance(found, BaseModel) else found
            assert (set(named) if isinstance(value, dict) else as_toml(found)) == expected, name


def parse(verb: str, flags: list[str]) -> BaseSettings:
    return groundup.parse(groundup.load(groundup.choose(verb).config), flags, prog=verb)


def as_toml(value: Any) -> Any:
    if isinstance(value, tuple):
        return [as_toml(part) for part in value]
    return str(value) if isinstance(value, Path) else value


RUNS = [recipe for recipe in RECIPES if own_command(recipe)[0] in ("pretrain", "instruct", "dpo", "classify")]
"""Recipes of one run that makes a model; those of other verbs have tests of their own."""


@pytest.mark.parametrize("recipe", RUNS, ids=lambda path: path.stem)
def test_a_recipe_made_small_ends_with_a_model(recipe: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    name = own_command(recipe)[0]
    verb, settings = groundup.choose(name), read(recipe)
    config_class = groundup.load(verb.config)
    small = {key: value for key, value in SMALL.items() if key in config_class.model_fields}
    own = settings.get("model", {})
    changes: dict[str, Any] = {"out": tmp_path / "out"}
    if "model" in config_class.model_fields:
        changes["model"] = {**own, **SMALL_MODEL}
        if own.get("n_kv_head"):
            changes["model"]["n_kv_head"] = 1
    if "tokenizer" in settings:
        (tmp_path / "tokenizer").mkdir()
        for file, content in tokenizer.files().items():
            (tmp_path / "tokenizer" / file).write_bytes(content)
        changes["tokenizer"] = str(tmp_path / "tokenizer")
    if "base" in settings:
        model = make_gpt(make_config("gpt2", block_size=320))
        template = DEFAULT_TEMPLATE if name == "dpo" else None
        save_checkpoint(tmp_path / "base", model, tokenizer, model_card="# base\n", chat_template=template)
        changes |= {"base": tmp_path / "base"} | ({"model": own} if "model" in changes else {})
    if name == "pretrain":
        changes["data"] = [write_text(tmp_path / f"{i}", i) for i, _ in enumerate(settings["data"])]
    else:
        labels = [renamed.partition("=")[0] for renamed in settings.get("label_names", ["ham=", "spam="])]
        changes["data"] = write_records(tmp_path, name, labels)
    if "test_data" in settings:
        (tmp_path / "held-out").mkdir()
        changes["test_data"] = write_records(tmp_path / "held-out", name, labels, first=60)
    config = config_class.model_validate({**settings, **small, **changes})
    groundup.load(verb.run)(config)
    kind = {"pretrain": "base", "classify": "classifier"}.get(name, "chat")
    assert read_checkpoint(tmp_path / "out").kind == kind


def write_records(folder: Path, verb: str, labels: list[str], first: int = 0) -> Path:
    """A file of what a finetuning verb reads; a classifier's texts have two labels."""
    if verb == "classify":
        numbers = range(first, first + 60)
        texts = [f"win a prize number {i}" if i % 2 else f"see you at {i}" for i in numbers]
        rows = [f"{labels[i % 2]}\t{text}" for i, text in zip(numbers, texts, strict=True)]
        (folder / "data.tsv").write_text("label\ttext\n" + "\n".join(rows) + "\n")
        return folder / "data.tsv"
    records = [
        {"instruction": f"Add one to {i}.", "input": "Please." * (i % 2), "output": str(i + 1), "chosen": str(i + 1)}
        for i in range(20)
    ]
    (folder / "data.json").write_text(json.dumps([{**record, "rejected": "no"} for record in records]))
    return folder / "data.json"


def write_text(folder: Path, seed: int) -> Path:
    """A folder with a few documents of made text."""
    folder.mkdir()
    for number in range(5):
        lines = [f"In {1800 + seed + i * number} the ship met {i} others and went on." for i in range(20)]
        (folder / f"{number}.txt").write_text("\n".join(lines))
    return folder
