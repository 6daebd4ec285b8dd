"""What an adapter directory says of itself, and of the model that it makes of its base. Reads headers, never weights.

Free of torch, so that the HTTP process and the command line can ask cheaply; the weights are `model.adapter`'s.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from model.adapter_config import AdapterConfig
from model.convert import canonical_name, public_tensors
from model.directory import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    CONFIG_FILE,
    Checkpoint,
    CheckpointError,
    checkpoint_name,
    has_chat_template,
    read_checkpoint,
    read_json,
)

PREFIX = "base_model.model."
"""What PEFT puts before the public names."""


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter directory, described."""

    path: Path
    config: AdapterConfig
    num_labels: int | None
    """Outputs of the classification head that is stored with it; None for a language model."""
    base_digests: Mapping[str, str]
    """Digest of each tensor of the base by public name, where the file tells them."""
    shapes: Mapping[str, Sequence[int]]
    """Shape of each stored tensor."""

    @property
    def weights(self) -> Path:
        """File of the updates."""
        return self.path / ADAPTER_WEIGHTS_FILE

    @property
    def base_name(self) -> str:
        """What the adapter calls its base, for messages."""
        return self.config.base or "a base that it does not name"


def read_adapter(path: Path | str) -> StoredAdapter:
    """Describe the adapter directory at `path`.

    Raises:
        CheckpointError: a file is missing, damaged, or asks for what we do not support.
    """
    path = Path(path)
    public = read_json(path / ADAPTER_CONFIG_FILE)
    try:
        config = AdapterConfig.from_public(public)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path / ADAPTER_CONFIG_FILE}: {place}: {first['msg']}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path / ADAPTER_CONFIG_FILE}: {error}") from None
    shapes, facts = _read_header(path / ADAPTER_WEIGHTS_FILE)
    head = shapes.get(f"{PREFIX}score.weight")
    if head is None and public.get("task_type") == "SEQ_CLS":
        raise CheckpointError(
            f"{path / ADAPTER_WEIGHTS_FILE}: adapts a classifier, but its head score.weight is missing"
        )
    try:
        digests = dict(json.loads(facts.get("base_digests", "{}")))
    except (TypeError, ValueError):
        raise CheckpointError(f"{path / ADAPTER_WEIGHTS_FILE}: its facts are damaged; write it again") from None
    return StoredAdapter(path, config, head[0] if head else None, digests, shapes)


def describe_adapted(stored: StoredAdapter, base: Checkpoint) -> Checkpoint:
    """Describe the model that an adapter makes of a language model: by its own files, or as PEFT leaves it to the base.

    Raises:
        CheckpointError: a file of the adapter is unreadable.
    """
    if (stored.path / CONFIG_FILE).exists():
        own = read_checkpoint(stored.path)
        if len(own.labels) != (stored.num_labels or 0):
            raise CheckpointError(f"{stored.weights}: does not hold what {CONFIG_FILE} beside it says")
        return own
    described = dataclasses.replace(
        base,
        path=stored.path,
        name=checkpoint_name(stored.path.resolve()),
        created=int(stored.weights.stat().st_mtime),
    )
    if stored.num_labels is not None:
        labels = tuple(f"LABEL_{i}" for i in range(stored.num_labels))
        return dataclasses.replace(described, kind="classifier", labels=labels)
    return dataclasses.replace(described, kind="chat") if has_chat_template(stored.path) else described


def misfit(stored: StoredAdapter, base: Checkpoint) -> str | None:
    """Say why an adapter cannot belong to a base of this shape; None where it can."""
    try:
        wanted = dict(_wanted_shapes(stored, base))
    except ValueError as error:
        return f"target_modules: {error}"
    for stored_name, shape in stored.shapes.items():
        name = PREFIX + canonical_name(stored_name.removeprefix(PREFIX), base.config)
        asked = wanted.pop(name, None)
        if asked is None:
            return f"tensor {stored_name!r} has no place in this base"
        if tuple(shape) != asked:
            return f"tensor {stored_name!r} has shape {list(shape)}, but this base asks for {list(asked)}"
    return f"tensor {next(iter(wanted))!r} is missing" if wanted else None


def _wanted_shapes(stored: StoredAdapter, base: Checkpoint) -> Iterator[tuple[str, tuple[int, ...]]]:
    columns = {
        tensor.public_name: tensor.shape[0] if tensor.is_transposed else tensor.shape[1]
        for tensor in public_tensors(base.config)
        if len(tensor.shape) == 2
    }
    for linear in stored.config.adapted(base.config, is_classifier=stored.num_labels is not None):
        rank, name = stored.config.rank_of(linear.public_name), f"{PREFIX}{linear.public_name}"
        yield f"{name}.lora_A.weight", (rank, columns[f"{linear.public_name}.weight"])
        yield f"{name}.lora_B.weight", (linear.num_rows, rank)
    if stored.num_labels is not None:
        yield f"{PREFIX}score.weight", (stored.num_labels, base.config.n_embd)


def _read_header(file: Path) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Return the shape of each tensor, and the facts in the file's head."""
    if not file.exists():
        pickled = next(iter(file.parent.glob("*.bin")), None)
        if pickled is not None:
            raise CheckpointError(f"{pickled}: pickled weights are refused; save the adapter as {file.name}")
        raise CheckpointError(f"{file}: no such file; an adapter directory needs it")
    try:
        with safe_open(file, framework="np") as stored:
            shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 - no mapping
            return shapes, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error}); fetch or write it again") from None
