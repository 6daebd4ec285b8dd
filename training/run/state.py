"""All that a run is, between two steps: its numbers, and every tensor and random generator that the next step needs.

It names and collects; `snapshots` writes and reads. Optimizer state goes by the name of its parameter, so that any
number of processes can take it over from any other.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.machine.device import seed_all
from training.run.snapshots import Snapshot


@dataclass(slots=True)
class TrainerState:
    """Where a run stands, in numbers."""

    step: int = 0
    """Optimizer steps done."""
    num_tokens: int = 0
    """Tokens read by all processes, padding included."""
    seconds: float = 0.0
    """Time spent in training steps."""
    best_step: int = 0
    best_loss: float = float("inf")
    """The lowest validation loss so far, and after which step it was found."""
    looks_in_vain: int = 0
    """Looks at the validation data since then."""
    is_stopped: bool = False
    """Whether somebody asked the run to stop before its end."""


def training_tensors(
    model: nn.Module, optimizers: Iterable[Optimizer], averages: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights that train, optimizer state and averaged weights by name; writing into them changes the run."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            tensors |= {f"optim.{names[parameter]}.{key}": value for key, value in values.items()}
    return tensors | {f"average.{name}": tensor for name, tensor in averages.items()}


def make_room(model: nn.Module, optimizers: Iterable[Optimizer], snapshot: Snapshot) -> None:
    """Give optimizers that have not stepped yet the state tensors that a snapshot holds, full of zeros."""
    parameters = dict(model.named_parameters())
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for full_name, (shape, dtype) in snapshot.tensors.items():
        kind, _, rest = full_name.partition(".")
        name, _, key = rest.rpartition(".")
        if kind == "optim" and name in parameters:
            parameter = parameters[name]
            is_alike = shape == parameter.shape  # then it is shared out like its parameter
            like = parameter.detach() if is_alike else torch.empty(shape, device=parameter.device)
            owners[parameter].state[parameter][key] = torch.zeros_like(like, dtype=dtype)


def rng_tensors(rank: int, device: torch.device) -> dict[str, Tensor]:
    """Return the state of every random generator of one process."""
    python = random.getstate()
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    words = [*legacy["state"]["key"].tolist(), legacy["state"]["pos"], legacy["has_gauss"], legacy["gauss"]]
    states = {  # words of 32 bits are exact in a double
        "torch": torch.get_rng_state(),
        "python": torch.tensor([python[0], *python[1], python[2] is not None, python[2] or 0.0], dtype=torch.float64),
        "numpy": torch.tensor(words, dtype=torch.float64),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {f"rng.{rank}.{name}": tensor for name, tensor in states.items()}


def set_rng(tensors: Mapping[str, Tensor], rank: int, device: torch.device) -> None:
    """Put the generators of this process into the states that `rng_tensors` returned."""
    torch.set_rng_state(tensors[f"rng.{rank}.torch"])
    version, *words, has_gauss, gauss = tensors[f"rng.{rank}.python"].tolist()
    random.setstate((int(version), tuple(map(int, words)), gauss if has_gauss else None))
    *words, pos, has_gauss, gauss = tensors[f"rng.{rank}.numpy"].tolist()
    state = {"key": np.array(words, np.uint32), "pos": int(pos)}
    np.random.set_state({"bit_generator": "MT19937", "state": state, "has_gauss": int(has_gauss), "gauss": gauss})
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"rng.{rank}.cuda"], device)


def reseed(seed: int, step: int, rank: int) -> None:
    """Start the generators of a process that a snapshot knows nothing of, each process and step differently."""
    seed_all(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
