"""The served models: which one a request gets, and by which names."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from service.web.catalog import load_models
from service.web.errors import InvalidParameter, UnknownModel, UnsupportedModel
from service.web.models import ServedModels


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


def test_an_alias_is_another_name_of_a_model(models: ServedModels) -> None:
    served = ServedModels(models, "gpt-4o", {"gpt-4o": "tiny-chat"})
    assert served.choose({"model": "gpt-4o"}, "chat").id == "tiny-chat"
    assert served.choose({}, "chat").id == "tiny-chat"
    card = served.cards()[-1]
    assert (card["id"], card["root"]) == ("gpt-4o", "tiny-chat")
    assert served.card("gpt-4o") == card
    served.drop("tiny-chat")
    assert [card["id"] for card in served.cards()] == ["tiny-base", "tiny-spam"]
    with pytest.raises(UnknownModel):
        served.choose({"model": "gpt-4o"}, "chat")


def test_an_alias_stands_for_a_served_model_and_hides_none(models: ServedModels) -> None:
    with pytest.raises(ValueError, match="--aliases: 'other' is none of tiny-base, tiny-chat, tiny-spam"):
        ServedModels(models, None, {"gpt-4o": "other"})
    with pytest.raises(ValueError, match="--aliases: 'tiny-base' is the name of a model"):
        ServedModels(models, None, {"tiny-base": "tiny-chat"})


def test_a_model_takes_the_place_of_one_with_its_id(models: ServedModels) -> None:
    served = ServedModels(models)
    newer = dataclasses.replace(models.get("tiny-base"), version="tiny-base/7")
    assert served.put(newer) is models.get("tiny-base")
    assert served.get("tiny-base") is newer
    assert [model.id for model in served] == ["tiny-base", "tiny-chat", "tiny-spam"]
