"""The models this service offers: what each can do, and what the HTTP process needs of it. Loads no weights."""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.chat import ChatTemplate
from model.directory import MULTI_LABEL, SINGLE_LABEL, Checkpoint, Kind, read_checkpoint, weight_files
from model.tokenizer import Tokenizer
from service.settings import ServiceSettings
from service.web.complaints import json_type
from service.web.errors import InvalidParameter, UnknownModel, UnsupportedModel

Capability = Literal["completions", "chat", "embeddings", "classify"]
WorkerName = Literal["generate", "classify"]

_CAPABILITIES: Mapping[Kind, tuple[Capability, ...]] = {
    "base": ("completions", "embeddings"),
    "chat": ("chat", "completions", "embeddings"),
    "classifier": ("classify",),
}
_ENDPOINTS: Mapping[Capability, str] = {
    "completions": "v1/completions",
    "chat": "v1/chat/completions",
    "embeddings": "v1/embeddings",
    "classify": "classify",
}
_NOUNS: Mapping[Capability, str] = {
    "completions": "completions",
    "chat": "chat",
    "embeddings": "text embedding",
    "classify": "classification",
}

_SAMPLED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One checkpoint, as the HTTP process knows it."""

    id: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    template: ChatTemplate | None
    fingerprint: str
    """Changes when the same request might get another answer."""

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return _CAPABILITIES[self.checkpoint.kind]

    @property
    def worker(self) -> WorkerName:
        return "classify" if self.checkpoint.kind == "classifier" else "generate"

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.checkpoint.config.block_size

    @property
    def vocab_size(self) -> int:
        """Ids a request may name: what the model has a row for."""
        return self.checkpoint.config.vocab_size

    def card(self) -> dict[str, Any]:
        """Return the entry of `GET /v1/models`."""
        card: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": self.checkpoint.created,
            "owned_by": "groundup",
            "root": self.id,
            "parent": None,
            "max_model_len": self.context,
            "capabilities": list(self.capabilities),
            "quantization": None,
        }
        if self.checkpoint.labels:
            card["labels"] = list(self.checkpoint.labels)
            card["problem_type"] = MULTI_LABEL if self.checkpoint.is_multi_label else SINGLE_LABEL
        return card


class ServedModels:
    """All of them, by id, in the order they were given."""

    def __init__(self, models: Iterable[ServedModel], default_id: str | None = None) -> None:
        """Raises ValueError when two models share an id, or when the default is not one of them."""
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.id in self._models:
                raise ValueError(f"two checkpoints are named {model.id!r}; rename one of the directories")
            self._models[model.id] = model
        if default_id is not None and default_id not in self._models:
            raise ValueError(f"--default-model: {default_id!r} is none of {', '.join(self._models)}")
        self._default_id = default_id

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, model_id: str) -> ServedModel:
        """Look a model up by its id in a path.

        Raises:
            UnknownModel: there is none.
        """
        if model_id not in self._models:
            raise UnknownModel.as_resource(model_id)
        return self._models[model_id]

    def choose(self, data: Mapping[str, Any], capability: Capability) -> ServedModel:
        """Return the model a request body asks for.

        Raises:
            InvalidParameter: it names none and there is no default, or the name is not a string.
            UnknownModel: there is no such model.
            UnsupportedModel: it cannot do this.
        """
        model = self._named(data) or self._default(capability)
        if capability not in model.capabilities:
            raise UnsupportedModel(_NOUNS[capability], _ENDPOINTS[capability], _ENDPOINTS[model.capabilities[0]])
        return model

    def choose_any(self, data: Mapping[str, Any]) -> ServedModel:
        """The same where every model will do: the default, else the first."""
        return self._named(data) or self._models.get(self._default_id or "") or next(iter(self._models.values()))

    def _named(self, data: Mapping[str, Any]) -> ServedModel | None:
        name = data.get("model")
        if name is None:
            return None
        if not isinstance(name, str):
            message = f"Invalid type for 'model': expected a string, but got {json_type(name)} instead."
            raise InvalidParameter("invalid_type", "model", message)
        if name not in self._models:
            raise UnknownModel(name)
        return self._models[name]

    def _default(self, capability: Capability) -> ServedModel:
        default = self._models.get(self._default_id or "")
        if capability == "classify" and (default is None or capability not in default.capabilities):
            able = [model for model in self._models.values() if capability in model.capabilities]
            if len(able) == 1:
                return able[0]
        if default is None:
            raise InvalidParameter("missing_required_parameter", "model", "you must provide a model parameter")
        return default


def load_models(settings: ServiceSettings) -> ServedModels:
    """Read what each checkpoint directory says of itself, its tokenizer and its chat template.

    Raises:
        CheckpointError: a directory is missing, broken or asks for what we do not support.
        TokenizerError: the same for its tokenizer.
        ChatTemplateError: the same for its chat template.
        ValueError: two checkpoints have one name, or the default model is none of them.
    """
    return ServedModels((_load(path, settings) for path in settings.checkpoints), settings.default_model)


def _load(path: Path, settings: ServiceSettings) -> ServedModel:
    checkpoint = read_checkpoint(path)
    tokenizer = Tokenizer.from_directory(path)
    return ServedModel(
        id=checkpoint.name,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        template=ChatTemplate.from_directory(path, tokenizer) if checkpoint.kind == "chat" else None,
        fingerprint=_fingerprint(path, settings),
    )


def _fingerprint(path: Path, settings: ServiceSettings) -> str:
    digest = hashlib.sha256(_weights_digest(path))
    options = (settings.dtype, settings.device, settings.page_size, settings.max_num_batched_tokens)
    digest.update(repr((options, importlib.metadata.version("groundup"))).encode())
    return "fp_" + digest.hexdigest()[:10]


def _weights_digest(path: Path) -> bytes:
    """Digest what tells one set of weights from another without reading gigabytes: config, sizes, both ends."""
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in weight_files(path):
        size_bytes = file.stat().st_size
        digest.update(size_bytes.to_bytes(8, "little"))
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLED_BYTES))
            stream.seek(max(0, size_bytes - _SAMPLED_BYTES))
            digest.update(stream.read(_SAMPLED_BYTES))
    return digest.digest()
