import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from training.config.classify import ClassifyConfig
from training.config.demo import DemoConfig
from training.config.evaluate import EvaluateConfig
from training.config.instruct import InstructConfig
from training.config.pretrain import PretrainConfig
from training.config.run import OptimConfig, RunConfig
from training.config.shape import ModelShape

CONFIGS = [PretrainConfig, ClassifyConfig, InstructConfig, DemoConfig, EvaluateConfig]


def test_resolved_settings_come_back_from_their_toml() -> None:
    config = PretrainConfig.model_validate(
        {"data": 'a "b".txt', "out": "runs/x", "model": {"n_kv_head": 2}, "optim": {"lr": 1e-4}, "stride": 7}
    )
    assert PretrainConfig.model_validate(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_is_documented(config: type[BaseSettings]) -> None:
    for name, field in config.model_fields.items():
        assert field.description, name


def test_nested_settings_are_documented() -> None:
    for part in (PretrainConfig.model_fields["model"].annotation, PretrainConfig.model_fields["optim"].annotation):
        assert part is not None
        assert all(field.description for field in part.model_fields.values())


@pytest.mark.parametrize("changes", [{"steps": 0}, {"optim": {"lr": -1}}, {"vocab_size": 100}, {"colour": "red"}])
def test_what_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PretrainConfig.model_validate({"data": "a.txt", "out": "runs/x", **changes})


def test_fractions_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="must leave something"):
        ClassifyConfig(data=Path("a"), out=Path("b"), valid_fraction=0.5, test_fraction=0.5)


def test_one_setting_of_a_part_leaves_the_others_at_the_verbs_own_defaults() -> None:
    paths = {"data": Path("a"), "out": Path("b")}
    plain, changed = (
        ClassifyConfig.model_validate({**paths, **more})
        for more in ({}, {"optim": {"weight_decay": 0.2}, "model": {"n_head": 2}})
    )
    assert changed.optim.lr == plain.optim.lr == 2e-3
    assert changed.model.model_copy(update={"n_head": 4}) == plain.model


def test_the_environment_can_set_what_a_flag_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_TRAIN_STEPS", "7")
    monkeypatch.setenv("GROUNDUP_TRAIN_OPTIM__LR", "0.5")
    config = PretrainConfig(data=Path("a.txt"), out=Path("runs/x"))
    assert (config.steps, config.optim.lr) == (7, 0.5)


def test_importing_the_configs_does_not_import_torch() -> None:
    modules = ", ".join(config.__module__ for config in CONFIGS)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1, 2, 3]}, "--weights: 3 shares for 1 times --data"),
        ({"optim": {"schedule": "wsd", "warmup": 0.5, "decay": 0.6}}, "--optim.warmup and --optim.decay: more than"),
        ({"preset": "gpt5"}, "one of gpt2-small"),
        ({"base": "b", "model": {"n_layer": 2}}, "--model.n-layer: --base brings its own"),
        ({"base": "b", "preset": "gpt2-small"}, "--preset: --base brings its own"),
        ({"base": "b", "tokenizer": "gpt2"}, "--tokenizer: --base brings its own"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainConfig.model_validate({"data": "a.txt", "out": "runs/x", **changes})


@pytest.mark.parametrize(
    "prompt", ["\U0001f600 caf\u00e9", 'a\x7f\x01"\\\n'], ids=["beyond 16 bits", "control characters"]
)
def test_settings_with_any_characters_come_back_from_toml(prompt: str) -> None:
    config = PretrainConfig(out=Path("x"), data=(Path("d.txt"),), sample_prompts=(prompt,))
    assert tomllib.loads(config.to_toml())["sample_prompts"] == [prompt]


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_rate_must_be_a_number_that_a_file_can_hold(value: str) -> None:
    with pytest.raises(ValidationError, match="finite"):
        OptimConfig.model_validate({"weight_decay": float(value)})


def test_sizes_that_do_not_fit_together_are_one_line_before_any_text_is_read() -> None:
    with pytest.raises(ValidationError) as caught:
        PretrainConfig(out=Path("x"), data=(Path("d.txt"),), model=ModelShape(n_head=3))
    (error,) = caught.value.errors()
    assert error["msg"] == "Value error, --model: n_embd (128) must be a multiple of n_head (3)"


def test_a_seed_fits_every_generator() -> None:
    with pytest.raises(ValidationError, match="seed"):
        RunConfig(out=Path("x"), seed=2**63)


@pytest.mark.parametrize("out", ["/", ".", ".."])
def test_a_checkpoint_needs_a_name(out: str) -> None:
    with pytest.raises(ValidationError, match="no name for a checkpoint"):
        RunConfig(out=Path(out))
