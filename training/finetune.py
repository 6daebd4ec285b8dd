"""What of a model trains: all of it, its last blocks, its head, or adapters; and what it must have started from.

What a finetuning recipe does with this: `load_base`, `prepare` before the trainer is made, and the adapter that it
returns handed on to whatever saves the model (`save_checkpoint`, `save_run`).
"""

import hashlib
from pathlib import Path

import torch
from torch import nn

from model.adapter_config import AdapterConfig, PublicLinear
from model.adapter_directory import read_adapter
from model.checkpoint import load_gpt
from model.classifier import GPTClassifier
from model.directory import (
    ADAPTER_CONFIG_FILE,
    Checkpoint,
    CheckpointError,
    is_adapter,
    read_checkpoint,
    weight_files,
)
from model.gpt import GPT, Attention
from model.lora import add_lora, cast_weights
from training.config.finetune import FinetuneConfig


def load_base(base: Path, config: FinetuneConfig) -> GPT:
    """Load the language model that a run starts from, in the precision that its settings ask for.

    Raises:
        CheckpointError: it cannot be used.
    """
    must_be_language_model(base)
    return load_gpt(base, dtype=base_dtype(config))


def must_be_language_model(base: Path) -> Checkpoint:
    """Return what a run starts from, described.

    Raises:
        CheckpointError: it cannot be read, or holds a classifier.
    """
    checkpoint = read_checkpoint(base)
    if checkpoint.kind == "classifier":
        raise CheckpointError(f"--base: {base} holds a classifier; give a language model")
    return checkpoint


def base_dtype(config: FinetuneConfig) -> torch.dtype:
    """Return the type of the weights that a run starts from."""
    return torch.bfloat16 if config.lora.base_dtype == "bfloat16" else torch.float32


def prepare(model: GPT | GPTClassifier, config: FinetuneConfig) -> AdapterConfig | None:
    """Set dropout, and let only that train which the settings name, in place, adapters included.

    Returns:
        What a checkpoint of the model must be told to save its adapters; None where it has none.

    Raises:
        ValueError: a target of the adapters names no linear layer, their rank is larger than one of those, or there
            are fewer blocks than shall train.
    """
    if config.dropout is not None:
        set_dropout(model, config.dropout)
    if config.lora.rank is None:
        choose(model, config.trainable)
        return None
    settings = config.lora
    adapter = AdapterConfig(
        rank=config.lora.rank,
        alpha=settings.alpha if settings.alpha is not None else 2 * config.lora.rank,
        dropout=settings.dropout,
        targets=settings.targets,
        base=str(config.base) if config.base is not None else None,
    )
    try:
        adapted = adapter.adapted(model.config, is_classifier=isinstance(model, GPTClassifier))
    except ValueError as error:
        raise ValueError(f"--lora.targets: {error}") from None
    if any(linear.public_name == "lm_head" for linear in adapted):
        raise ValueError("--lora.targets: lm_head: cannot be adapted while training; leave it out")
    for linear in adapted:
        shape = (linear.num_rows, columns_of(model, linear))
        if adapter.rank > min(shape):
            raise ValueError(
                f"--lora.rank: {adapter.rank} is more than a whole update of {linear.public_name} has, which is "
                f"{shape[0]} x {shape[1]}; give at most {min(shape)}"
            )
    cast_weights(model, base_dtype(config))
    add_lora(model, adapter)
    return adapter


def set_dropout(model: GPT | GPTClassifier, share: float) -> None:
    """Zero another share of activations while training, in place."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(module, Attention):
            module.dropout = share
        elif isinstance(module, GPT | GPTClassifier):
            module.config = module.config.model_copy(update={"dropout": share})


def columns_of(model: GPT | GPTClassifier, linear: PublicLinear) -> int:
    """Return how many inputs a linear layer has."""
    body = model.gpt if isinstance(model, GPTClassifier) else model
    layer = body.get_submodule(linear.name)
    assert isinstance(layer, nn.Linear)
    return layer.in_features


def choose(model: GPT | GPTClassifier, trainable: str | int) -> None:
    """Freeze all but the head, or all but the last blocks, the norm after them and the head; or nothing.

    Raises:
        ValueError: there are fewer blocks.
    """
    body, head = (model.gpt, model.score) if isinstance(model, GPTClassifier) else (model, model.lm_head)
    model.requires_grad_(trainable == "all")
    head.requires_grad_(True)
    if isinstance(trainable, int):
        if trainable > len(body.h):
            raise ValueError(f"--trainable: {trainable} blocks, but the model has {len(body.h)}")
        for part in (*body.h[-trainable:], body.ln_f):
            part.requires_grad_(True)


def base_digest(base: Path) -> str:
    """Return a digest of the weights that a run starts from: what does not train is not in its snapshots.

    Those that an adapter makes are told by its description and by its own base as well.

    Raises:
        CheckpointError: there are none.
    """
    found = hashlib.sha256()
    for file in weight_files(base):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    if is_adapter(base):
        found.update((base / ADAPTER_CONFIG_FILE).read_bytes())
        below = read_adapter(base).config.base
        if below is not None and Path(below).is_dir():
            found.update(base_digest(Path(below)).encode())
    return found.hexdigest()
