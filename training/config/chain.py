"""Settings of `groundup chain`: the runs that follow one another, each with settings of its own verb."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings

from training.config.run import RunConfig

VERBS = {
    "pretrain": ("training.config.pretrain:PretrainConfig", "training.pretrain:run"),
    "classify": ("training.config.classify:ClassifyConfig", "training.classify:run"),
    "instruct": ("training.config.instruct:InstructConfig", "training.instruct:run"),
    "dpo": ("training.config.dpo:DpoConfig", "training.dpo:run"),
    "evaluate": ("training.config.evaluate:EvaluateConfig", "training.evaluation.command:run"),
    "judge": ("training.config.judge:JudgeConfig", "training.evaluation.judge_command:run"),
}
"""What a stage may be, with its settings and its work."""

SERVER = "{server}"
"""Stands in a stage's settings for the address of the server that is started for it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a chain."""

    number: int
    verb: str
    settings: Mapping[str, Any]
    serve: tuple[str, ...]
    """Checkpoints that a server offers meanwhile."""

    def config(self, server: str = SERVER) -> BaseSettings:
        """Return the settings of the stage's verb.

        Args:
            server: address to put in the place of `{server}`.

        Raises:
            ValueError: a setting is unknown, missing or out of range; the message names stage and flag.
        """
        settings = {
            name: value.replace(SERVER, server) if isinstance(value, str) else value
            for name, value in self.settings.items()
        }
        config_class = load(VERBS[self.verb][0])
        if issubclass(config_class, RunConfig):
            settings["resume"] = True  # a chain that is started again goes on where it was
        try:
            config: BaseSettings = config_class.model_validate(settings)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            flag = ".".join(map(str, first["loc"])).replace("_", "-")
            known = {"missing": "required", "extra_forbidden": "unknown setting"}
            message = known.get(first["type"], first["msg"].removeprefix("Value error, "))
            raise ValueError(f"{self}: --{flag}: {message}" if flag else f"{self}: {message}") from None
        return config

    def __str__(self) -> str:
        return f"stage {self.number} ({self.verb})"


class ChainConfig(BaseSettings):
    """Do several runs one after another, such as base, domain, answers, preferences, judgement.

    Started again, it goes on where it was: what is finished is not done again.
    """

    model_config = RunConfig.model_config

    stages: tuple[dict[str, Any], ...] = Field(min_length=1)
    """In a file: a `[[stages]]` table for each run with its `verb` (pretrain, classify, instruct, dpo, evaluate or
    judge) and its settings. `serve` names checkpoints that our server offers meanwhile, at an address that `{server}`
    stands for."""
    shared: dict[str, Any] = {}
    """Settings of all stages that train, unless they have their own."""

    @property
    def runs(self) -> list[Stage]:
        """The stages, with what they share."""
        found = []
        for number, table in enumerate(self.stages, 1):
            settings = dict(table)
            verb, serve = settings.pop("verb", None), settings.pop("serve", ())
            if verb not in VERBS:
                raise ValueError(f"--stages: stage {number}: verb {verb!r} is none of {', '.join(VERBS)}")
            if not isinstance(serve, list | tuple) or not all(isinstance(path, str) for path in serve):
                raise ValueError(f"--stages: stage {number}: serve must be a list of checkpoints")
            trains = issubclass(load(VERBS[verb][0]), RunConfig)
            found.append(Stage(number, verb, {**(self.shared if trains else {}), **settings}, tuple(serve)))
        return found

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        for stage in self.runs:
            stage.config()
            if SERVER in str(stage.settings) and not stage.serve:
                raise ValueError(f"{stage}: {SERVER} needs `serve`, the checkpoints that the server offers")
        return self


def load(place: str) -> Any:
    """Import `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
