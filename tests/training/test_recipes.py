"""The recipes say what runs: every key is known, every command in a comment parses, and each runs when made small."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

import groundup
from model.checkpoint import load_gpt, save_checkpoint
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training import pretrain
from training.config.pretrain import PretrainConfig

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
}
"""What makes a run short, whatever it trains; all else is as the recipe has it."""

SMALL_MODEL = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}


def read(recipe: Path) -> dict[str, Any]:
    return tomllib.loads(recipe.read_text())


def commands(recipe: Path) -> list[list[str]]:
    """Return the groundup commands in a recipe's comments, without what starts them on several processes."""
    lines = re.findall(r"^# +(groundup .*|torchrun .*)$", recipe.read_text(), re.MULTILINE)
    return [shlex.split(re.sub(r"^torchrun .* -m groundup", "groundup", line)) for line in lines]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_command_in_a_recipe_parses_and_one_runs_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parsed = []
    for _, *words in commands(recipe):
        verb, flags = groundup.split_verb(words)
        parsed.append(groundup.parse(groundup.load(groundup.choose(verb).config), flags, prog=verb))
    (own, *_) = [config for config in parsed if isinstance(config, PretrainConfig)]
    for name, value in read(recipe).items():
        if name != "data":  # a command may name its own text
            expected = value if not isinstance(value, dict) else set(value)
            found = getattr(own, name)
            assert (found.model_fields_set if isinstance(value, dict) else as_toml(found)) == expected, name


def as_toml(value: Any) -> Any:
    if isinstance(value, tuple):
        return [as_toml(part) for part in value]
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_made_small_ends_with_a_model(recipe: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings = read(recipe)
    own = settings.get("model", {})
    changes: dict[str, Any] = {"out": tmp_path / "out", "model": {**own, **SMALL_MODEL}}
    if own.get("n_kv_head"):
        changes["model"]["n_kv_head"] = 1
    if "tokenizer" in settings:
        (tmp_path / "tokenizer").mkdir()
        for name, content in tokenizer.files().items():
            (tmp_path / "tokenizer" / name).write_bytes(content)
        changes["tokenizer"] = str(tmp_path / "tokenizer")
    if "base" in settings:
        save_checkpoint(tmp_path / "base", make_gpt(make_config("gpt2")), tokenizer, model_card="# base\n")
        changes |= {"base": tmp_path / "base", "model": own}
    changes["data"] = [write_text(tmp_path / f"{i}", i) for i, _ in enumerate(settings["data"])]
    config = PretrainConfig.model_validate({**settings, **SMALL, **changes})
    pretrain.run(config)
    assert load_gpt(config.out).num_params() > 0


def write_text(folder: Path, seed: int) -> Path:
    """A folder with a few documents of made text."""
    folder.mkdir()
    for number in range(5):
        lines = [f"In {1800 + seed + i * number} the ship met {i} others and went on." for i in range(20)]
        (folder / f"{number}.txt").write_text("\n".join(lines))
    return folder
