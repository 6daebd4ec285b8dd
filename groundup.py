"""The front door: `groundup VERB ...`, one verb per job, each imported only when chosen.

Settings come from flags, then environment, then a TOML file (`--config run.toml`), then defaults. Whatever a user can
get wrong ends in one line, `error: --flag: message`, and exit status 2. It knows no verb's work and no setting.
"""

import difflib
import importlib
import importlib.metadata
import os
import re
import sys
import tomllib
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

ConfigT = TypeVar("ConfigT", bound=BaseSettings)

POSITIONAL_MARK = get_args(CliPositionalArg[str])[1]
"""What a setting has among its metadata that is given by its place on the command line."""


class Verb(NamedTuple):
    """Where a verb's config class and its `run(config)` live, as `module:name`, and what it is for."""

    config: str
    run: str
    summary: str


VERBS = {
    "serve": Verb("service.settings:ServiceSettings", "service.server:run", "serve checkpoints as an OpenAI API"),
    "import": Verb(
        "model.import_command:ImportConfig", "model.import_command:run", "take in the weights of another project"
    ),
    "generate": Verb(
        "model.generate_command:GenerateConfig", "model.generate_command:run", "continue a prompt or answer it, here"
    ),
    "chat": Verb(
        "client.settings:ChatConfig", "client.chat:run", "talk to a model behind any OpenAI-compatible server"
    ),
    "merge": Verb("model.merge_command:MergeConfig", "model.merge_command:run", "merge an adapter into its base"),
    "data fetch": Verb("training.data.config:FetchConfig", "training.data.fetch:run", "download a public data set"),
    "data prepare": Verb(
        "training.data.config:PrepareConfig", "training.data.preparation:run", "turn texts into token shards"
    ),
    "pretrain": Verb(
        "training.config.pretrain:PretrainConfig", "training.pretrain:run", "teach a model to continue text"
    ),
    "classify": Verb(
        "training.config.classify:ClassifyConfig", "training.classify:run", "teach a model to label texts"
    ),
    "instruct": Verb(
        "training.config.instruct:InstructConfig", "training.instruct:run", "teach a base model to answer"
    ),
    "dpo": Verb("training.config.dpo:DpoConfig", "training.dpo:run", "teach an assistant the better of two answers"),
    "evaluate": Verb(
        "training.config.evaluate:EvaluateConfig", "training.evaluation.command:run", "measure a checkpoint on a file"
    ),
    "judge": Verb(
        "training.config.judge:JudgeConfig", "training.evaluation.judge_command:run", "let a model grade saved answers"
    ),
    "arena": Verb("training.config.arena:ArenaConfig", "training.evaluation.arena_command:run", "rank models by votes"),
    "chain": Verb("training.config.chain:ChainConfig", "training.chain:run", "do several of these, one after another"),
    "plot": Verb("training.run.plot:PlotConfig", "training.run.plot:run", "draw the curves of runs"),
    "train-demo": Verb(
        "training.config.demo:DemoConfig", "training.demo.command:run", "train the three demo models, on a CPU"
    ),
    "bench-training": Verb(
        "training.bench.settings:PeerBenchSettings", "training.bench.command:run", "measure the training beside nanoGPT"
    ),
    "bench-text": Verb(
        "training.bench.settings:TextBenchSettings",
        "training.bench.text:run",
        "measure compressors and n-grams on a text",
    ),
    "bench-classify": Verb(
        "training.bench.settings:ClassifyBenchSettings",
        "training.bench.regimes:run",
        "measure what of a model should train to classify",
    ),
    "bench": Verb(
        "service.settings:BenchSettings", "service.bench.command:run", "measure the engine beside transformers"
    ),
}


class UsageError(Exception):
    """The command line, an environment variable or the config file is wrong; the message is for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb named first in `argv` (default: the process's arguments) and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or {"-h", "--help", "help"} & {arguments[0], split_verb(arguments)[0].partition(" ")[2]}:
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"groundup {importlib.metadata.version('groundup')}")
        return 0
    try:
        name, flags = split_verb(arguments)
        verb = choose(name)
        config = parse(load(verb.config), flags, prog=f"groundup {name}")
        run: Callable[[Any], None] = load_run(verb)
        run(config)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 141
    except (UsageError, ValueError, OSError) as error:
        if os.environ.get("GROUNDUP_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def overview() -> str:
    """Return the help text that lists the verbs."""
    verbs = "\n".join(f"  {name:<16}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"usage: groundup VERB [...]\n\n{verbs}\n\n"
        "`groundup VERB --help` lists the settings of a verb. Each is a flag (--max-num-seqs 8), an environment\n"
        "variable or a line of a TOML file (--config run.toml), in this order of precedence.\n"
        "Several values of one are parted by commas (--data a.txt,b.txt).\n"
        "GROUNDUP_TRACEBACK=1 shows where an error came from."
    )


def split_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Part a verb, of one word or two, from its flags."""
    num_words = 2 if any(name.startswith(f"{arguments[0]} ") for name in VERBS) else 1
    return " ".join(arguments[:num_words]), list(arguments[num_words:])


def choose(name: str) -> Verb:
    """Return the verb called `name`.

    Raises:
        UsageError: there is none; the message suggests the nearest one.
    """
    if name not in VERBS:
        group = [verb for verb in VERBS if verb.startswith(f"{name} ")]
        hint = f"add one of: {', '.join(verb.removeprefix(f'{name} ') for verb in group)}" if group else None
        hint = hint or _did_you_mean(name, VERBS) or "`groundup --help` lists them"
        raise UsageError(f"{name}: unknown verb; {hint}")
    return VERBS[name]


def load(place: str) -> Any:
    """Import `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def load_run(verb: Verb) -> Any:
    """Import what does a verb's work.

    Raises:
        UsageError: it needs packages that are not installed, as those for training are not where one only serves.
    """
    try:
        return load(verb.run)
    except ModuleNotFoundError as error:
        package, extra = (error.name or "").partition(".")[0], verb.run.partition(".")[0]
        if package in ("model", "service", "training") or extra != "training":
            raise
        raise UsageError(f"{package} is not installed; training needs it: pip install 'groundup[training]'") from error


def parse(config_class: type[ConfigT], arguments: Sequence[str], *, prog: str) -> ConfigT:
    """Build a config from flags, environment, file and defaults; `--help` prints the flags and exits.

    Raises:
        UsageError: naming the flag that is unknown, missing or out of range.
    """
    bases: Any = (_with_file(_config_file(arguments)), config_class)
    command = create_model(config_class.__name__, __base__=bases, __doc__=config_class.__doc__)
    options: dict[str, Any] = {
        "_cli_parse_args": list(arguments),
        "_cli_prog_name": prog,
        "_cli_exit_on_error": False,
        "_cli_hide_none_type": True,
        "_cli_avoid_json": True,
        "_cli_kebab_case": True,
        "_cli_implicit_flags": True,
    }
    try:
        parsed = command(**options)
        # Handed on as the class the verb declared: it travels to other processes, which cannot import `command`.
        return config_class(**{name: getattr(parsed, name) for name in config_class.model_fields})
    except ValidationError as error:
        raise UsageError(_describe(error, config_class)) from error
    except SettingsError as error:
        raise UsageError(_translate(str(error), config_class)) from error


def _with_file(toml_file: Path | None) -> type[BaseSettings]:
    """Make a base class that reads `toml_file` after flags and environment, and knows the flag that names it."""

    class FromFile(BaseSettings):
        model_config = SettingsConfigDict(use_attribute_docstrings=True)

        config: Path | None = None
        """TOML file with settings by name; those of dotted flags live in tables."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=toml_file)

    return FromFile


def _config_file(arguments: Sequence[str]) -> Path | None:
    """Find `--config` before everything else is parsed; a file that cannot be read would be skipped in silence."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        path: Path | None = parser.parse_known_args(arguments)[0].config
        if path is not None:
            tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config: {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config: {path}: not TOML: {error}") from error
    except ArgumentError as error:
        raise UsageError("--config: expected one argument") from error
    return path


def _describe(error: ValidationError, config_class: type[BaseModel]) -> str:
    """Put the first problem into one line; those without a place name their flags themselves."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = ".".join(str(part) for part in first["loc"])
    flag = name.upper() if _is_positional(config_class, name) else f"--{name.replace('_', '-')}"
    if first["type"] == "missing":
        return f"{flag}: required"
    if first["type"] == "extra_forbidden":
        return f"{flag}: unknown setting; {_did_you_mean(flag, _flags(config_class)) or 'see --help'}"
    return f"{flag}: {message}"


def _translate(message: str, config_class: type[BaseModel]) -> str:
    """Turn the parser's sentence into `flag: message`."""
    message = message.removeprefix("error parsing CLI: ")
    if match := re.fullmatch(r"unrecognized arguments: (\S+).*", message, re.DOTALL):
        if not match[1].startswith("-"):
            return f"{match[1]}: one argument too many; see --help"
        hint = _did_you_mean(match[1], _flags(config_class)) or "see --help"
        return f"{match[1]}: unknown flag; {hint}"
    if match := re.fullmatch(r"the following arguments are required: (.+)", message):
        return f"{match[1]}: required"
    if match := re.fullmatch(r"argument (\S+): (.+)", message, re.DOTALL):
        return f"{match[1]}: {match[2]}"
    return message


def _is_positional(config_class: type[BaseModel], name: str) -> bool:
    """Say whether a setting is no flag; help shows it in capitals."""
    field = config_class.model_fields.get(name)
    return field is not None and POSITIONAL_MARK in field.metadata


def _flags(config_class: type[BaseModel], prefix: str = "--") -> Iterator[str]:
    for name, field in config_class.model_fields.items():
        flag = prefix + name.replace("_", "-")
        yield flag
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _flags(field.annotation, f"{flag}.")


def _did_you_mean(word: str, known: Iterator[str] | dict[str, Verb]) -> str | None:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


if __name__ == "__main__":
    sys.exit(main())
