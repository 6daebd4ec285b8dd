"""Which device a process computes on, and how torch and the random generators are set up before a model is built."""

import os
import random

import numpy as np
import torch

from training.config.run import RunConfig


def set_up_torch(config: RunConfig) -> None:
    """Seed the generators behind weights and dropout, and bound the threads. Call before a model is built."""
    seed_all(config.seed)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    if pick_device(config.device).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: as fast as bfloat16 where that is not asked for


def seed_all(seed: int) -> None:
    """Start every random generator of this process from a seed of 32 bits."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def pick_device(name: str) -> torch.device:
    """Resolve `auto` to a GPU if there is one, and a GPU without a number to this process's own.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {name} cannot be used here: {str(error).splitlines()[0]}") from None


def autocast(config: RunConfig) -> torch.autocast:
    """Return what lets a run compute as precisely as its settings ask for, wherever it does."""
    return torch.autocast(pick_device(config.device).type, torch.bfloat16, enabled=config.precision == "bf16")
