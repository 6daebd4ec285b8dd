"""One model on one or many processes: in place, copied to each (DDP), or shared out among them (FSDP2).

The model is wrapped from outside and does not know; its parameters keep their names. Gradients are summed over the
processes, never averaged: the trainer divides by what it counted.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from model.gpt import Block
from training.config.run import RunConfig
from training.machine.device import autocast, pick_device
from training.machine.parallel import World

T = TypeVar("T")


class SharedModel:
    """A model at work on all processes.

    Args:
        model: the caller's. It is trained in place, except where it is shared out: then a copy is trained, and the
            caller's weights are empty until `gather` fills them again on the first process.
        config: device, precision and kind of parallelism, recomputation and compilation.
    """

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        self.world = World.current()
        self.device = pick_device(config.device)
        self.original = model
        self.is_sharded = config.parallel == "fsdp" and self.world.size > 1
        if self.is_sharded:
            model = copy.deepcopy(model)
            self.release()
        model.to(self.device)
        for parameter in model.parameters():
            self.world.share(parameter.detach())
        self.calls = Calls(model, autocast(config))
        if config.recompute:
            recompute_blocks(model)
        if config.compile:
            compile_calls(self.calls, by_block=self.is_sharded)
        if self.is_sharded:
            shard(self.calls, self.device, half=config.precision == "bf16")
        self._copied = copied(self.calls) if self.world.size > 1 and not self.is_sharded else None

    @property
    def model(self) -> nn.Module:
        """The model whose weights move."""
        return self.calls.model

    def __call__(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(model, *args)`; to be called on all processes alike."""
        result: T = self.calls(function, *args)
        if isinstance(self.calls, FSDPModule):
            self.calls.reshard()  # a backward pass would have done it
        return result

    def train_call(self, function: Callable[..., T], *args: Any) -> T:
        """Like a call, for a backward pass that sums the gradients of all processes."""
        result: T = (self._copied or self.calls)(function, *args)
        return result

    def adding(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Surround forward and backward pass of a micro-batch; copies exchange gradients in the last one only."""
        return self._copied.no_sync() if self._copied is not None and not is_last else nullcontext()

    def gather(self) -> None:
        """Bring all weights together in the caller's model, on the CPU of the first process."""
        if self.is_sharded:
            originals = dict(self.original.named_parameters())
            for name, parameter in self.model.named_parameters():
                full = whole(parameter.detach())  # one at a time: no device ever holds the whole model
                if self.world.is_first:
                    originals[name].data = full.cpu()

    def release(self) -> None:
        """Free what `gather` brought, where it is a copy."""
        if self.is_sharded:
            for parameter in self.original.parameters():
                parameter.data = torch.empty(0, dtype=parameter.dtype)


class Calls(nn.Module):
    """Runs functions of a model as its own forward pass, so that whatever wraps it surrounds every such call.

    What the functions return must be tensors in tuples and dictionaries: the hooks of FSDP look for them there.
    """

    def __init__(self, model: nn.Module, autocast: AbstractContextManager[Any]) -> None:
        super().__init__()
        self.model = model
        self._autocast = autocast

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        with self._autocast:
            return function(self.model, *args)


def recompute_blocks(model: nn.Module) -> None:
    """Let every block keep its input only and compute the rest again in the backward pass (Chen et al. 2016).

    Dropout draws the same numbers the second time.
    """
    for block in blocks(model):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def compile_calls(calls: Calls, *, by_block: bool) -> None:
    """Compile in place, so that no name changes: every call as a whole, or each block where weights come and go."""
    for module in blocks(calls) if by_block else [calls]:
        module.compile()


def copied(calls: Calls) -> DistributedDataParallel:
    """Wrap a model of which every process holds a copy."""
    wrapped = DistributedDataParallel(calls, forward_sync_buffers=False, gradient_as_bucket_view=True, init_sync=False)
    wrapped.register_comm_hook(None, _sum_gradients)
    return wrapped


def _sum_gradients(state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    future: torch.futures.Future[list[Tensor]] = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def shard(calls: Calls, device: torch.device, *, half: bool) -> None:
    """Share out the weights of a model: each block is gathered when it computes, the rest for the whole call."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy if half else MixedPrecisionPolicy()}
    for block in blocks(calls):
        fully_shard(block, **options)
    fully_shard(calls, **options)
    for module in calls.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of a model."""
    return [module for module in model.modules() if isinstance(module, Block)]


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be shared out in one piece; to be called on all processes alike."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, as a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
