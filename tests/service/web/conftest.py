"""The service in front of scripted workers, on the tiny checkpoints' descriptions and tokenizer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.chat import ChatTemplate
from model.tokenizer import Tokenizer
from service.settings import ServiceSettings
from service.web.catalog import load_models
from service.web.models import ServedModels
from tests.service.web.scripted_worker import ScriptedWorker, Service, scores, writes

ServiceMaker = Callable[..., Service]


@pytest.fixture(scope="session")
def checkpoint_paths(tiny_checkpoints: Path) -> tuple[Path, ...]:
    return tuple(tiny_checkpoints / name for name in ("tiny-base", "tiny-chat", "tiny-spam"))


@pytest.fixture(scope="session")
def models(checkpoint_paths: tuple[Path, ...]) -> ServedModels:
    return load_models(ServiceSettings(checkpoints=checkpoint_paths))


@pytest.fixture(scope="session")
def make_service(models: ServedModels, checkpoint_paths: tuple[Path, ...], tokenizer: Tokenizer) -> ServiceMaker:
    """Build a service: `generate` and `classify` are scripts, `text` what every sequence writes, `template` that of
    the models that chat; the rest are settings."""

    def make(
        *,
        generate: Any = None,
        classify: Any = None,
        text: str = "Hi!",
        template: str | None = None,
        is_up: bool = True,
        **changes: Any,
    ) -> Service:
        settings = ServiceSettings(checkpoints=checkpoint_paths, **changes)
        generate_worker = ScriptedWorker(generate or writes(tokenizer.encode(text)))
        chosen = [
            replace(model, template=ChatTemplate(template, tokenizer)) if template and model.template else model
            for model in models
        ]
        served = ServedModels(chosen, settings.default_model)
        return Service(served, settings, generate_worker, ScriptedWorker(classify or scores(1.0, 0.0)), is_up)

    return make


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    """Every sequence is `Hi!`, ended by its limit; every text is `ham`."""
    return make_service()
