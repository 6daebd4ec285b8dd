"""The served models: which one a request gets, and a fingerprint that changes when answers may."""

import shutil
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from service.web.catalog import load_models
from service.web.errors import InvalidParameter, UnknownModel, UnsupportedModel
from service.web.models import ServedModels


def fingerprint(path: Path, **changes: object) -> str:
    settings = ServiceSettings(checkpoints=(path,), **changes)
    return next(iter(load_models(settings))).fingerprint


def test_fingerprint_is_stable_and_changes_with_what_shapes_an_answer(tiny_checkpoints: Path, tmp_path: Path) -> None:
    original = tiny_checkpoints / "tiny-base"
    copy = shutil.copytree(original, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(original)
    assert fingerprint(original, dtype="bfloat16") != fingerprint(original)
    assert fingerprint(original, quantize="int8") != fingerprint(original)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(copy) != fingerprint(original)


def test_models_are_named_after_their_directories_and_kinds_decide_what_they_can(models: ServedModels) -> None:
    assert {model.id: model.capabilities for model in models} == {
        "tiny-base": ("completions", "embeddings"),
        "tiny-chat": ("chat", "completions", "embeddings"),
        "tiny-spam": ("classify",),
    }
    assert {model.id: model.worker for model in models} == {
        "tiny-base": "generate",
        "tiny-chat": "generate",
        "tiny-spam": "classify",
    }


def test_two_models_of_one_name_are_refused(models: ServedModels) -> None:
    with pytest.raises(ValueError, match="two checkpoints are named 'tiny-base'"):
        ServedModels([*models, models.get("tiny-base")])


def test_default_model_must_be_served(models: ServedModels) -> None:
    with pytest.raises(ValueError, match="'other' is none of tiny-base, tiny-chat, tiny-spam"):
        ServedModels(models, "other")


def test_default_answers_where_it_can_and_is_refused_where_it_cannot(models: ServedModels) -> None:
    served = ServedModels(models, "tiny-base")
    assert served.choose({}, "completions").id == "tiny-base"
    assert served.choose({}, "classify").id == "tiny-spam"
    with pytest.raises(UnsupportedModel):
        served.choose({}, "chat")


def test_names_are_looked_up_before_defaults(models: ServedModels) -> None:
    served = ServedModels(models, "tiny-base")
    assert served.choose({"model": "tiny-chat"}, "completions").id == "tiny-chat"
    assert served.choose_any({"model": "tiny-spam"}).id == "tiny-spam"
    assert served.choose_any({}).id == "tiny-base"
    with pytest.raises(UnknownModel):
        served.choose_any({"model": "other"})


def test_two_classifiers_have_to_be_told_apart(tiny_checkpoints: Path, tmp_path: Path) -> None:
    first, second = tiny_checkpoints / "tiny-spam", shutil.copytree(tiny_checkpoints / "tiny-spam", tmp_path / "other")
    served = load_models(ServiceSettings(checkpoints=(first, second)))
    with pytest.raises(InvalidParameter, match="you must provide a model parameter"):
        served.choose({}, "classify")
    assert served.choose({"model": "other"}, "classify").id == "other"


def test_a_card_says_what_the_weights_were_rounded_to(tiny_checkpoints: Path) -> None:
    settings = ServiceSettings(checkpoints=(tiny_checkpoints / "tiny-base",), quantize="int8")
    assert next(iter(load_models(settings))).card()["quantization"] == "int8"
