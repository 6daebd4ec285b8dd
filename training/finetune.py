"""What of a model trains: all of it, its last blocks, its head, or adapters; and what it must have started from.

What a finetuning recipe does with this: `load_base`, `prepare` before the trainer is made, and the adapter that it
returns handed on to whatever saves the model (`save_checkpoint`, `save_run`).
"""

import hashlib
from pathlib import Path

import torch

from model.adapter_config import AdapterConfig
from model.checkpoint import load_gpt
from model.classifier import GPTClassifier
from model.directory import weight_files
from model.gpt import GPT
from model.lora import add_lora, cast_weights
from training.config.finetune import FinetuneConfig


def load_base(base: Path, config: FinetuneConfig) -> GPT:
    """Load the language model that a run starts from, in the precision that its settings ask for.

    Raises:
        CheckpointError: it cannot be used.
    """
    return load_gpt(base, dtype=base_dtype(config))


def base_dtype(config: FinetuneConfig) -> torch.dtype:
    """Return the type of the weights that a run starts from."""
    return torch.bfloat16 if config.lora.base_dtype == "bfloat16" else torch.float32


def prepare(model: GPT | GPTClassifier, config: FinetuneConfig) -> AdapterConfig | None:
    """Let only that train which the settings name, in place, adapters included.

    Returns:
        What a checkpoint of the model must be told to save its adapters; None where it has none.

    Raises:
        ValueError: a target of the adapters names no linear layer, or there are fewer blocks than shall train.
    """
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
    cast_weights(model, base_dtype(config))
    add_lora(model, adapter)
    return adapter


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

    Raises:
        CheckpointError: there are none.
    """
    found = hashlib.sha256()
    for file in weight_files(base):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()
