"""nanoGPT's `ckpt.pt` (github.com/karpathy/nanoGPT): GPT-2 with exact GELU, and with biases or without any."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.convert import public_tensors
from model.directory import CheckpointError
from model.foreign.foreign_model import ForeignModel, make_config, tensors_of

SIZES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")


def is_nanogpt(content: Mapping[str, Any]) -> bool:
    """Whether this is what nanoGPT saves: its model, the arguments to build it, and its training state."""
    return isinstance(content.get("model"), Mapping) and isinstance(content.get("model_args"), Mapping)


def open_nanogpt(file: Path, content: Mapping[str, Any]) -> ForeignModel:
    """Describe a checkpoint of nanoGPT: Hugging Face's names, matrices that are not transposed.

    Raises:
        CheckpointError: an argument of the model is missing or makes no model.
    """
    given = content["model_args"]
    for name in SIZES:
        if name not in given:
            raise CheckpointError(f"{file}: {name} is missing from its model_args")
    config = make_config(
        file,
        family="gpt2",
        activation="gelu",
        dropout=given.get("dropout", 0.0),
        **{name: given[name] for name in SIZES},
    )
    table = tuple(
        replace(public, shape=public.shape[::-1], is_transposed=False) if public.is_transposed else public
        for public in public_tensors(config)
        if given.get("bias", True) or not public.name.endswith(".bias")
    )
    stored = {name.removeprefix("_orig_mod."): tensor for name, tensor in tensors_of(file, content["model"]).items()}
    stored.pop("lm_head.weight", None)  # the embedding again
    return ForeignModel("nanoGPT", file, config, table, stored)
