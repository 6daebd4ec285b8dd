"""What a checkpoint directory says of itself: kind, shape, labels, end tokens. Reads small JSON files, never weights.

Free of torch, so that the HTTP process and the command line can ask cheaply.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from model.config import GPTConfig
from model.public_config import config_from_public

Kind = Literal["base", "chat", "classifier"]

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
"""What PEFT calls the files of an adapter, whose base is elsewhere."""

ADAPTER_FOLDER = "adapter"
"""Where a checkpoint of an adapted model has the adapter itself, for those who have the base."""

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
"""What transformers calls the kinds of classifiers (`problem_type`): labels exclude each other, or do not."""


class CheckpointError(ValueError):
    """A checkpoint directory cannot be read or written; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint directory, described."""

    path: Path
    name: str
    """The directory's name; a server offers the model under it. That of an adapter names its run as well."""
    kind: Kind
    config: GPTConfig
    labels: tuple[str, ...]
    """A classifier's labels by index; empty for other kinds."""
    eos_token_ids: tuple[int, ...]
    """Ids that end a generated sequence."""
    pad_token_id: int | None
    created: int
    """When the weights were written, in seconds since 1970."""
    is_multi_label: bool = False
    """Whether a classifier's labels are answered each by itself, so that a text has any number of them."""


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Describe the checkpoint directory at `path`.

    Raises:
        CheckpointError: the directory or a file is missing or unreadable, or asks for what we do not support.
    """
    path = Path(path)
    if not path.is_dir() and (replaced := path.with_name(f".{path.name}.old")).is_dir():
        raise CheckpointError(f"{path}: a replacement of it was cut short; rename {replaced.name} back to {path.name}")
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; give a checkpoint directory with {CONFIG_FILE} in it")
    if is_adapter(path) and not (path / CONFIG_FILE).exists():
        raise CheckpointError(
            f"{path}: holds an adapter, not a whole model; make one: groundup merge {path} --base BASE --out OUT"
        )
    public = read_json(path / CONFIG_FILE)
    try:
        config = config_from_public(public)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "config"
        raise CheckpointError(f"{path / CONFIG_FILE}: {place}: {first['msg']}") from None
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG_FILE}: {error}") from None
    labels = _read_labels(path, public)
    kind: Kind = "classifier" if labels else "chat" if has_chat_template(path) else "base"
    generation = read_json(path / GENERATION_CONFIG_FILE) if (path / GENERATION_CONFIG_FILE).exists() else {}
    return Checkpoint(
        path=path,
        name=checkpoint_name(path.resolve()),
        kind=kind,
        config=config,
        labels=labels,
        eos_token_ids=_read_eos(generation.get("eos_token_id", public.get("eos_token_id"))),
        pad_token_id=generation.get("pad_token_id", public.get("pad_token_id")),
        created=int(max(file.stat().st_mtime for file in weight_files(path))),
        is_multi_label=_is_multi_label(path, public) if labels else False,
    )


def checkpoint_name(path: Path) -> str:
    """Return what a directory's model is called: an adapter inside a checkpoint names its run as well."""
    is_inside_checkpoint = path.name == ADAPTER_FOLDER and (path.parent / CONFIG_FILE).exists()
    return f"{path.parent.name}-{path.name}" if is_inside_checkpoint else path.name


def is_adapter(path: Path) -> bool:
    """Say whether a directory holds an adapter. One of ours also describes the model that it makes of its base."""
    return (path / ADAPTER_CONFIG_FILE).exists()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a checkpoint directory needs it") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(content).__name__}, expected an object")
    return content


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several, or that of an adapter.

    Raises:
        CheckpointError: there are none; a pickled checkpoint is refused by name, since loading one runs its code.
    """
    if is_adapter(path) and (path / ADAPTER_WEIGHTS_FILE).exists():
        return [path / ADAPTER_WEIGHTS_FILE]
    if (path / WEIGHTS_FILE).exists():
        return [path / WEIGHTS_FILE]
    if (path / WEIGHTS_INDEX_FILE).exists():
        weight_map = read_json(path / WEIGHTS_INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(f"{path / WEIGHTS_INDEX_FILE}: weight_map does not map tensors to files")
        names = sorted(set(weight_map.values()))
        files = [path / name for name in names]
        missing = [file for file in files if not file.exists()]
        if missing or not files:
            raise CheckpointError(f"{missing[0] if missing else path / WEIGHTS_INDEX_FILE}: no such weights file")
        return files
    pickles = [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]
    if pickles:
        raise CheckpointError(f"{pickles[0]}: pickled weights are refused; convert them to {WEIGHTS_FILE}")
    raise CheckpointError(f"{path / WEIGHTS_FILE}: no such file; a checkpoint directory needs it")


def _read_labels(path: Path, public: Mapping[str, Any]) -> tuple[str, ...]:
    if not any(name.endswith("ForSequenceClassification") for name in public.get("architectures") or []):
        return ()
    names = public.get("id2label") or {}
    try:
        labels = tuple(str(names[str(i)]) for i in range(len(names)))
    except KeyError as missing:
        raise CheckpointError(
            f"{path / CONFIG_FILE}: id2label counts from 0 without gaps; {missing} is missing"
        ) from None
    if len(labels) < 2:
        raise CheckpointError(f"{path / CONFIG_FILE}: a classifier needs at least two labels in id2label")
    return labels


def _is_multi_label(path: Path, public: Mapping[str, Any]) -> bool:
    kind = public.get("problem_type") or SINGLE_LABEL
    if kind not in (SINGLE_LABEL, MULTI_LABEL):
        raise CheckpointError(
            f"{path / CONFIG_FILE}: problem_type {kind!r} is not supported; it is {SINGLE_LABEL} or {MULTI_LABEL}"
        )
    return kind == MULTI_LABEL


def has_chat_template(path: Path) -> bool:
    """Say whether a directory, be it of a checkpoint or of an adapter, tells how conversations are written."""
    if (path / CHAT_TEMPLATE_FILE).exists():
        return True
    tokenizer_config = path / "tokenizer_config.json"
    return tokenizer_config.exists() and bool(read_json(tokenizer_config).get("chat_template"))


def _read_eos(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)
