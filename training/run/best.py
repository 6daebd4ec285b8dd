"""The weights with the lowest validation loss, put aside while a run goes on: in memory, or as a servable checkpoint.

Which weights are the best is the trainer's judgement.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from model.adapter import fill_adapter
from model.adapter_directory import read_adapter
from model.checkpoint import load_classifier, load_gpt
from model.classifier import GPTClassifier
from model.directory import ADAPTER_FOLDER
from model.gpt import GPT
from model.lora import has_lora


class BestWeights(Protocol):
    """A place for the best weights; used on the first process only."""

    def save(self, step: int, model: nn.Module) -> None:
        """Put the weights of a model aside as those of a step."""

    def load(self, step: int, model: nn.Module) -> None:
        """Put the weights of a step into a model."""

    def forget_all_but(self, step: int) -> None:
        """Drop the weights of other steps, now that no snapshot speaks of them."""


class InMemory:
    """For runs that leave nothing behind but a model."""

    def __init__(self) -> None:
        self._weights: dict[int, dict[str, Tensor]] = {}

    def save(self, step: int, model: nn.Module) -> None:
        self._weights = {step: {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}}

    def load(self, step: int, model: nn.Module) -> None:
        copy_weights(self._weights[step], model)

    def forget_all_but(self, step: int) -> None:
        pass


class OnDisk:
    """Checkpoints `best-STEP` in a folder, of which the newest is also called `best`.

    An older one stays until a snapshot speaks of the newer: a run that is killed in between goes back to it.

    Args:
        folder: where they lie.
        write: writes a checkpoint directory of a model, such as `model.checkpoint.save_checkpoint` does.
    """

    def __init__(self, folder: Path, write: Callable[[Path, Any], object]) -> None:
        self._folder = folder
        self._write = write

    def save(self, step: int, model: nn.Module) -> None:
        self._write(self._place(step), model)
        self._point_to(step)

    def load(self, step: int, model: nn.Module) -> None:
        if has_lora(model):
            assert isinstance(model, GPT | GPTClassifier)
            fill_adapter(model, read_adapter(self._place(step) / ADAPTER_FOLDER))
            return
        load = load_classifier if isinstance(model, GPTClassifier) else load_gpt
        copy_weights(dict(load(self._place(step)).named_parameters()), model)

    def forget_all_but(self, step: int) -> None:
        if self._place(step).exists():
            self._point_to(step)  # a run that was killed may have named a later one
        for place in self._folder.glob("best-*"):
            if place != self._place(step):
                shutil.rmtree(place, ignore_errors=True)

    def _point_to(self, step: int) -> None:
        link = self._folder / ".best"
        link.unlink(missing_ok=True)
        link.symlink_to(self._place(step).name)
        os.replace(link, self._folder / "best")

    def _place(self, step: int) -> Path:
        return self._folder / f"best-{step:08d}"


def best_card(out: Path) -> str:
    """Return the model card of weights that are put aside while `out` is being made."""
    return f"# {out.name}, unfinished\n\nThe weights with the lowest validation loss so far.\n"


def copy_weights(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Copy weights to those of the same names in a model."""
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].detach().copy_(weight)
