"""The models this service offers: what each can do, and which one a request gets. Directories are not known here."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from model.chat import ChatTemplate
from model.directory import MULTI_LABEL, SINGLE_LABEL, Checkpoint, Kind
from model.tokenizer import Tokenizer
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


class Uses:
    """How many need a version: the list of served models, requests being answered, adapters on its weights.

    Counted on the event loop of the HTTP process alone.
    """

    def __init__(self) -> None:
        self._count = 0
        self.on_last_release: Callable[[], None] = lambda: None
        """Called when nobody needs the version any more."""

    @property
    def count(self) -> int:
        return self._count

    def hold(self) -> None:
        """Count one more."""
        self._count += 1

    def release(self) -> None:
        """Count one less."""
        self._count -= 1
        if self._count == 0:
            self.on_last_release()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model, as the HTTP process knows it."""

    id: str
    """What clients call it, whichever version it is."""
    version: str
    """What the worker calls it: one name for one version, for ever."""
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    template: ChatTemplate | None
    fingerprint: str
    """Changes when the same request might get another answer."""
    tokenizer_path: Path
    """Directory of its tokenizer; for an adapter it may be that of its base."""
    quantization: str | None = None
    """What the weights of its linear layers were rounded to when they were loaded."""
    base: "ServedModel | None" = None
    """For an adapter: the version whose weights it runs on."""
    uses: Uses = field(default_factory=Uses, compare=False)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return _CAPABILITIES[self.checkpoint.kind]

    @property
    def worker(self) -> WorkerName:
        has_own_weights = self.base is None
        return "classify" if self.checkpoint.kind == "classifier" and has_own_weights else "generate"

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.checkpoint.config.block_size

    @property
    def vocab_size(self) -> int:
        """Ids a request may name: what the model has a row for."""
        return self.checkpoint.config.vocab_size

    def card(self, name: str | None = None) -> dict[str, Any]:
        """Return the entry of `GET /v1/models`, under its own id or another name."""
        card: dict[str, Any] = {
            "id": name or self.id,
            "object": "model",
            "created": self.checkpoint.created,
            "owned_by": "groundup",
            "root": self.id,
            "parent": None if self.base is None else self.base.id,
            "max_model_len": self.context,
            "capabilities": list(self.capabilities),
            "quantization": self.quantization,
        }
        if self.checkpoint.labels:
            card["labels"] = list(self.checkpoint.labels)
            card["problem_type"] = MULTI_LABEL if self.checkpoint.is_multi_label else SINGLE_LABEL
        return card


Permission = Callable[[str], bool]
"""Whether a client may use the model of an id. What it may not use, it is not told of."""


def everything(model_id: str) -> bool:
    """Permit every model."""
    return True


class Choose(Protocol):
    """Finds the model that a request body asks for."""

    def __call__(self, data: Mapping[str, Any], *, may_use: Permission) -> ServedModel:
        """Return it, or raise what is wrong."""


class ServedModels:
    """All of them, by id, in the order they were given; which they are may change while requests run."""

    def __init__(
        self,
        models: Iterable[ServedModel],
        default_id: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """`aliases` are further names, each with the id it stands for.

        Raises:
            ValueError: two models share an id, or the default or an alias does not name one of them.
        """
        self._models: dict[str, ServedModel] = {}
        self._aliases = dict(aliases or {})
        for model in models:
            if model.id in self._models:
                raise ValueError(f"two checkpoints are named {model.id!r}; rename one of the directories")
            self._models[model.id] = model
        names = ", ".join(self._models)
        for alias, model_id in self._aliases.items():
            if alias in self._models:
                raise ValueError(f"--aliases: {alias!r} is the name of a model")
            if model_id not in self._models:
                raise ValueError(f"--aliases: {model_id!r} is none of {names}")
        if default_id is not None and self._find(default_id) is None:
            raise ValueError(f"--default-model: {default_id!r} is none of {names}")
        self._default_id = default_id

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def put(self, model: ServedModel) -> ServedModel | None:
        """Serve a version from now on; return the one that it replaces."""
        replaced = self._models.get(model.id)
        self._models[model.id] = model
        return replaced

    def drop(self, model_id: str) -> ServedModel:
        """Serve a model no more.

        Raises:
            UnknownModel: there is none of this id.
        """
        if model_id not in self._models:
            raise UnknownModel.as_resource(model_id)
        return self._models.pop(model_id)

    def is_alias(self, name: str) -> bool:
        """Say whether a name stands for the id of another model."""
        return name in self._aliases

    def cards(self, may_use: Permission = everything) -> list[dict[str, Any]]:
        """Return the entries of `GET /v1/models`: every model, then every alias of one."""
        models = [model for model in self if may_use(model.id)]
        aliases = [model.card(alias) for alias, of in self._aliases.items() for model in models if model.id == of]
        return [*(model.card() for model in models), *aliases]

    def card(self, name: str, may_use: Permission = everything) -> dict[str, Any]:
        """Return the entry of one name.

        Raises:
            UnknownModel: there is none.
        """
        model = self._find(name, may_use)
        if model is None:
            raise UnknownModel.as_resource(name)
        return model.card(name)

    def get(self, name: str) -> ServedModel:
        """Look a model up by its id, or by an alias, in a path.

        Raises:
            UnknownModel: there is none.
        """
        model = self._find(name)
        if model is None:
            raise UnknownModel.as_resource(name)
        return model

    def choose(
        self, data: Mapping[str, Any], capability: Capability, *, may_use: Permission = everything
    ) -> ServedModel:
        """Return the model a request body asks for.

        Raises:
            InvalidParameter: it names none and there is no default, or the name is not a string.
            UnknownModel: there is no such model.
            UnsupportedModel: it cannot do this.
        """
        model = self._named(data, may_use) or self._default(capability, may_use)
        if capability not in model.capabilities:
            raise UnsupportedModel(_NOUNS[capability], _ENDPOINTS[capability], _ENDPOINTS[model.capabilities[0]])
        return model

    def choose_any(self, data: Mapping[str, Any], *, may_use: Permission = everything) -> ServedModel:
        """The same where every model will do: the default, else the first."""
        first = next((model for model in self if may_use(model.id)), None)
        model = self._named(data, may_use) or self._find(self._default_id, may_use) or first
        if model is None:
            raise _no_model_named()
        return model

    def _named(self, data: Mapping[str, Any], may_use: Permission) -> ServedModel | None:
        name = data.get("model")
        if name is None:
            return None
        if not isinstance(name, str):
            message = f"Invalid type for 'model': expected a string, but got {json_type(name)} instead."
            raise InvalidParameter("invalid_type", "model", message)
        model = self._find(name, may_use)
        if model is None:
            raise UnknownModel(name)
        return model

    def _find(self, name: str | None, may_use: Permission = everything) -> ServedModel | None:
        model = self._models.get(self._aliases.get(name or "", name or ""))
        return model if model is not None and may_use(model.id) else None

    def _default(self, capability: Capability, may_use: Permission) -> ServedModel:
        default = self._find(self._default_id, may_use)
        if capability == "classify" and (default is None or capability not in default.capabilities):
            able = [model for model in self if capability in model.capabilities and may_use(model.id)]
            if len(able) == 1:
                return able[0]
        if default is None:
            raise _no_model_named()
        return default


def _no_model_named() -> InvalidParameter:
    return InvalidParameter("missing_required_parameter", "model", "you must provide a model parameter")
