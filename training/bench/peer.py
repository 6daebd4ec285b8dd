"""nanoGPT from a folder that the user names: its model to take steps with, its script to run as it is.

Only the names it publishes are known here: `GPTConfig`, `GPT`, `configure_optimizers`, `train.py`'s flags, `ckpt.pt`.
"""

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

NOT_A_PEER = "--peer: {}: not a nanoGPT checkout; fetch https://github.com/karpathy/nanoGPT and name its folder"


def load_peer(folder: Path) -> ModuleType:
    """Import `model.py` of a nanoGPT checkout.

    Raises:
        ValueError: it is not there.
    """
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    if spec is None or spec.loader is None or not (folder / "train.py").is_file():
        raise ValueError(NOT_A_PEER.format(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    with quiet():
        spec.loader.exec_module(module)
    return module


def quiet() -> AbstractContextManager[Any]:
    """Keep what the peer announces from between the tables."""
    return contextlib.redirect_stdout(io.StringIO())


class Peer:
    """nanoGPT's model and optimizer, and a step in the order in which its script takes one."""

    def __init__(self, module: ModuleType, shape: Mapping[str, Any], *, device: torch.device) -> None:
        with quiet():
            self.model: nn.Module = module.GPT(module.GPTConfig(**shape)).to(device)
            self.optimizer = self.model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.type)
        self._forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self.model

    def compile(self) -> None:
        """Compile the model, as its script does by default."""
        self._forward = torch.compile(self.model)

    def step(self, idx: Tensor, targets: Tensor, autocast: AbstractContextManager[Any]) -> float:
        """Take one optimizer step on `idx` (B, T) and `targets` (B, T) and return the loss."""
        with autocast:
            _, loss = self._forward(idx, targets)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def run_script(folder: Path, text: str, flags: Sequence[str], work: Path) -> dict[str, Any]:
    """Prepare a text and train on it with nanoGPT's own scripts, on a copy of its folder, and return its checkpoint.

    Args:
        flags: those of `train.py`, after its character-level configuration.
        work: an empty folder to copy to.

    Raises:
        ValueError: one of its scripts failed.
    """
    copy = work / "peer"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git", "*.ipynb", "assets"))
    data = copy / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    for command in (["data/shakespeare_char/prepare.py"], ["train.py", "config/train_shakespeare_char.py", *flags]):
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # its script sets none
        done = subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"--peer: {command[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    checkpoint: dict[str, Any] = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    return checkpoint
