"""Moves a tiny model by given gradients; several processes share it out, one keeps it whole.

The first process writes the final weights and Muon's state, as torch.distributed.checkpoint sees it, to OUT.
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tests.tiny import make_config, make_gpt
from training.config.run import OptimConfig
from training.machine.shared_model import whole
from training.optim import build_optimizers


def main(out: Path) -> None:
    """Take three steps."""
    torch.set_num_threads(1)
    model = make_gpt(make_config("qwen3", n_layer=3, n_inner=23))  # rows that two processes cannot halve
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo")
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizers = build_optimizers(model, OptimConfig(lr=0.01))
    for step in range(3):
        give_gradients(model, torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.step()
    state = get_optimizer_state_dict(model, optimizers[1])["state"]
    tensors = {f"optim.{name}": whole(values["momentum"]).clone() for name, values in state.items()}
    tensors |= {f"model.{name}": whole(p.detach()).clone() for name, p in model.named_parameters()}
    if not dist.is_initialized() or dist.get_rank() == 0:
        save_file(tensors, out)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def give_gradients(model: nn.Module, rng: torch.Generator) -> None:
    """Set the same random gradient however a parameter is shared out."""
    for parameter in model.parameters():
        grad = torch.randn(parameter.shape, generator=rng)
        if isinstance(parameter, DTensor):
            parameter.grad = distribute_tensor(grad, parameter.device_mesh, parameter.placements)
        else:
            parameter.grad = grad
