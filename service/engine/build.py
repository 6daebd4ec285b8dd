"""From a checkpoint directory and limits to an engine that is ready to step, and adapters of it.

Only processes that run a model import this: it brings torch with it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from model.adapter_directory import read_adapter
from model.adapter_rows import LoadedAdapter, read_updates
from model.checkpoint import load_gpt
from model.cpu_linear import Quantization, pack_linears
from model.directory import read_checkpoint
from model.kv_cache import page_bytes
from service.engine.compiled import check_compiler
from service.engine.engine import Engine
from service.engine.memory import (
    check_device,
    check_room,
    default_cache_tokens,
    default_page_size,
    keep_freed_memory,
    weight_bytes,
)
from service.engine.pages import PagePool
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler


def build_engine(
    path: Path,
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    prefill_chunk_tokens: int | None = None,
    kv_cache_tokens: int | None = None,
    page_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    quantization: Quantization | None = None,
    cuda_graphs: bool = True,
    compile_steps: bool = False,
    num_engines: int = 1,
) -> Engine:
    """Load a checkpoint and give it a cache.

    Args:
        path: the checkpoint directory.
        max_num_seqs: most sequences in one batch.
        max_num_batched_tokens: most tokens in one step, prompts and outputs together.
        prefill_chunk_tokens: most tokens of prompts in a step beside sequences that decode; None: all of the step's.
        kv_cache_tokens: tokens the cache holds; None lets every sequence reach the whole context, within this engine's
            share of a quarter of the device's memory.
        page_size: tokens per page; None takes what suits the device.
        device: where the model runs, for example `cpu` or `cuda`.
        dtype: of weights and cache, for example `float32`.
        quantization: what the weights of linear layers are rounded to; on a CPU, in float32.
        cuda_graphs: whether to capture decode steps, on a GPU.
        compile_steps: whether to compile decode steps, on a CPU.
        num_engines: how many share the device.

    Raises:
        CheckpointError: the directory does not hold a generation model.
        ValueError: the device lacks something, or the limits contradict each other or the model's context.
    """
    number_type = getattr(torch, dtype)
    config = read_checkpoint(path).config
    check_device(device, number_type)
    check_room(config, device, number_type)
    if compile_steps:
        check_compiler()
    page_size = page_size or default_page_size(config, device, number_type)
    if kv_cache_tokens is None:
        kv_cache_tokens = default_cache_tokens(
            config,
            page_size,
            page_bytes(config, page_size, number_type),
            max_num_seqs,
            device,
            num_engines=num_engines,
            weights=weight_bytes(config, number_type),
        )
    pool = PagePool(num_pages=kv_cache_tokens // page_size, page_size=page_size)
    scheduler = Scheduler(
        pool,
        block_size=config.block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
    )
    model = load_gpt(path, device=device, dtype=number_type)
    if device == "cpu":
        keep_freed_memory()
        pack_linears(model, quantization)
    runner = GPTRunner(model, num_pages=pool.num_pages, page_size=page_size)
    if device != "cpu" and cuda_graphs:
        runner.capture_graphs(max_num_seqs)
    if compile_steps:
        runner.compile_steps()
    return Engine(scheduler, runner)


@dataclass(frozen=True, slots=True)
class EngineAdapter:
    """An adapter that an engine's requests may ask for while it is installed."""

    name: str
    runner: GPTRunner
    loaded: LoadedAdapter

    @property
    def has_head(self) -> bool:
        """Whether it makes a classifier of the base."""
        return self.loaded.head is not None

    def install(self) -> None:
        """Let requests name it; between two steps."""
        self.runner.adapters.add(self.name, self.loaded)
        if self.loaded.head is not None:
            self.runner.heads[self.name] = self.loaded.head

    def remove(self) -> None:
        """Forget it; between two steps."""
        self.runner.adapters.remove(self.name)
        self.runner.heads.pop(self.name, None)


def build_adapter(engine: Engine, path: Path, name: str) -> EngineAdapter:
    """Load an adapter for the model of an engine that runs; it is not disturbed.

    Raises:
        CheckpointError: the adapter was made for another base.
    """
    runner = engine.runner
    assert isinstance(runner, GPTRunner)
    return EngineAdapter(name, runner, read_updates(read_adapter(path), runner.model.config, runner.device))
