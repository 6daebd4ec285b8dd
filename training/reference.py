"""What the reference model of preference tuning thinks of each answer: computed once, and kept while the run goes on.

The reference is the model as it stands before the first step; with fresh adapters, which add nothing yet, that is the
base. It knows pairs and a place for a file; the loss that compares with them is `preference_loss`'s.
"""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from model.gpt import GPT
from training.config.run import RunConfig
from training.data.pairs import PreferenceBatches
from training.machine.device import autocast, pick_device
from training.machine.parallel import World
from training.preference_loss import sequence_log_probs
from training.run.progress import pause

REFERENCE_FILE = "reference.safetensors"
"""Lies in the data folder of a run."""


def kept_log_probs(
    model: GPT, parts: dict[str, PreferenceBatches], config: RunConfig, place: Path, mark: str
) -> dict[str, Tensor]:
    """Return the log-probabilities of the answers of some sets of pairs, from a file if it holds them.

    Otherwise they are computed and written there; all processes take their share.

    Args:
        parts: pairs by the name of their set.
        mark: digest of all that they depend on: pairs, weights, how the model computes.

    Returns:
        Chosen and rejected (number of pairs, 2) for each set, float32 on the CPU.
    """
    world = World.current()
    kept = world.alone(lambda: read_kept(place, mark))
    if kept is None:
        kept = {name: reference_log_probs(model, batches, config) for name, batches in parts.items()}
        world.alone(lambda: write_kept(place, mark, kept))
    return kept


@torch.no_grad()
def reference_log_probs(model: GPT, batches: PreferenceBatches, config: RunConfig) -> Tensor:
    """Return the log-probabilities of chosen and rejected answers (number of pairs, 2), float32 on the CPU.

    The model computes where and as precisely as in training, without dropout, and is back on the CPU afterwards.
    """
    world, device = World.current(), pick_device(config.device)
    was_training = model.training
    model.to(device).eval()
    size = config.micro_batch_size or config.batch_size
    order, found = batches.by_length(), torch.zeros(len(batches.pairs), 2)
    mine = range(world.rank * size, len(order), world.size * size)
    for start in tqdm(mine, desc="reference", unit="batch", disable=not world.is_first, mininterval=pause()):
        items = order[start : start + size]
        batch = batches.collate(items)
        with autocast(config):
            log_probs, _ = sequence_log_probs(
                model, batch["idx"].flatten(0, 1).to(device), batch["targets"].flatten(0, 1).to(device)
            )
        found[items] = log_probs.view(-1, 2).float().cpu()
    world.sum(found)
    model.to("cpu").train(was_training)
    return found


def read_kept(place: Path, mark: str) -> dict[str, Tensor] | None:
    """Return what `write_kept` wrote under the same mark, or None."""
    try:
        with safe_open(str(place), "pt") as file:
            has_mark = (file.metadata() or {}).get("mark") == mark
        return load_file(place) if has_mark else None
    except (OSError, SafetensorError):
        return None


def write_kept(place: Path, mark: str, tensors: dict[str, Tensor]) -> None:
    """Write tensors beside their place and rename them, so that half a file never lies there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(place.name + ".new")
    save_file(tensors, str(aside), metadata={"mark": mark})
    os.replace(aside, place)
