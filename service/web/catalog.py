"""From directories to served models: what each says of itself, its tokenizer, its template, and an adapter's base.

No weights are loaded; those of a base are read when an adapter remembers digests of them.
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
from collections.abc import Iterable
from pathlib import Path

from model.adapter_base import find_base
from model.adapter_directory import StoredAdapter, describe_adapted, read_adapter
from model.chat import ChatTemplate
from model.directory import (
    ADAPTER_CONFIG_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    CheckpointError,
    has_chat_template,
    is_adapter,
    read_checkpoint,
    weight_files,
)
from model.tokenizer import Tokenizer
from service.settings import ServiceSettings
from service.web.models import ServedModel, ServedModels

_SAMPLED_BYTES = 1 << 16

_numbers = itertools.count(1)


def load_models(settings: ServiceSettings) -> ServedModels:
    """Read what each directory says of itself: checkpoints first, then the adapters of them.

    Raises:
        CheckpointError: a directory is missing, broken or asks for what we do not support, or the base of an adapter is
            not among them.
        TokenizerError: the same for its tokenizer.
        ChatTemplateError: the same for its chat template.
        ValueError: two checkpoints have one name, or the default model or an alias is none of them.
    """
    found: dict[Path, ServedModel] = {}
    for path in sorted(dict.fromkeys(settings.checkpoints), key=is_adapter):
        model = read_model(path, settings, found.values())
        found[path] = dataclasses.replace(model, version=model.id)  # the first version is named as the model
    return ServedModels((found[path] for path in settings.checkpoints), settings.default_model, settings.aliases)


def read_model(
    path: Path, settings: ServiceSettings, served: Iterable[ServedModel], model_id: str | None = None
) -> ServedModel:
    """Read a checkpoint or adapter directory.

    Args:
        path: the directory.
        settings: what else shapes answers.
        served: among them is an adapter's base.
        model_id: what clients are to call the model; None takes the directory's name.

    Raises:
        CheckpointError, TokenizerError, ChatTemplateError: as for `load_models`.
    """
    base = _served_base(path, served) if is_adapter(path) else None
    if base is None:
        checkpoint, tokenizer_path, template_path = read_checkpoint(path), path, path
    else:
        checkpoint = describe_adapted(read_adapter(path), base.checkpoint)
        tokenizer_path = path if (path / TOKENIZER_FILE).exists() else base.tokenizer_path
        template_path = path if has_chat_template(path) else base.checkpoint.path
    tokenizer = Tokenizer.from_directory(tokenizer_path)
    if tokenizer_path == path and not (path / CONFIG_FILE).exists():  # a tokenizer beside it, and nothing names its end
        end_ids = tuple(dict.fromkeys([tokenizer.eos_id, *checkpoint.eos_token_ids]))
        checkpoint = dataclasses.replace(checkpoint, eos_token_ids=end_ids)
    model_id = model_id or checkpoint.name
    return ServedModel(
        id=model_id,
        version=f"{model_id}/{next(_numbers)}",  # which is the name of no directory
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        template=ChatTemplate.from_directory(template_path, tokenizer) if checkpoint.kind == "chat" else None,
        fingerprint=fingerprint(path, settings, base),
        tokenizer_path=tokenizer_path,
        quantization=settings.quantize,
        base=base,
    )


def fingerprint(path: Path, settings: ServiceSettings, base: ServedModel | None = None) -> str:
    """Digest what shapes the answers of a directory's model."""
    digest = hashlib.sha256(_weights_digest(path))
    limits = (settings.page_size, settings.max_num_batched_tokens, settings.prefill_chunk_tokens)
    options = (settings.dtype, settings.quantize, settings.device, *limits)
    digest.update(repr((options, importlib.metadata.version("groundup"))).encode())
    if base is not None:
        digest.update(base.fingerprint.encode())
    return "fp_" + digest.hexdigest()[:10]


def has_changed(model: ServedModel, settings: ServiceSettings) -> bool:
    """Say whether a model's directory holds other weights than when it was read, or none."""
    try:
        return fingerprint(model.checkpoint.path, settings, model.base) != model.fingerprint
    except (CheckpointError, OSError):
        return True


def _served_base(path: Path, served: Iterable[ServedModel]) -> ServedModel | None:
    """Return the served base of an adapter; None where it can do with the one on disk that it names.

    Raises:
        CheckpointError: there is neither.
    """
    stored = read_adapter(path)
    candidates = [
        model
        for model in served
        if model.checkpoint.kind != "classifier" and model.base is None and not is_adapter(model.checkpoint.path)
    ]
    try:
        base = find_base(stored, [model.checkpoint for model in candidates])
    except CheckpointError:
        if _stands_alone(stored):
            return None
        raise
    return next(model for model in candidates if model.checkpoint is base)


def _stands_alone(stored: StoredAdapter) -> bool:
    has_description = (stored.path / CONFIG_FILE).exists()
    return has_description and stored.config.base is not None and Path(stored.config.base).is_dir()


def _weights_digest(path: Path) -> bytes:
    """Digest what tells one set of weights from another without reading gigabytes: config, sizes, both ends."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, ADAPTER_CONFIG_FILE):
        if (path / name).exists():
            digest.update((path / name).read_bytes())
    for file in weight_files(path):
        size_bytes = file.stat().st_size
        digest.update(size_bytes.to_bytes(8, "little"))
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLED_BYTES))
            stream.seek(max(0, size_bytes - _SAMPLED_BYTES))
            digest.update(stream.read(_SAMPLED_BYTES))
    return digest.digest()
