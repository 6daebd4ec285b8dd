"""From a checkpoint directory and limits to an engine that is ready to step.

Only processes that run a model import this: it brings torch with it.
"""

import os
from pathlib import Path

import torch

from model.checkpoint import load_gpt
from model.config import GPTConfig
from model.cpu_linear import pack_linears
from model.kv_cache import page_bytes
from service.engine.engine import Engine
from service.engine.pages import PagePool
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler

CACHE_SHARE = 0.25
"""Share of a device's memory that a cache may take when its size is not given."""
GPU_PAGE_SIZE = 16
LONG_PAGE_SIZE = 256
"""Tokens per page on a CPU where whole contexts are too large to hold `FEW_SEQUENCES` of them."""
FEW_SEQUENCES = 8


def build_engine(
    path: Path,
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_cache_tokens: int | None = None,
    page_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Engine:
    """Load a checkpoint and give it a cache.

    Args:
        path: the checkpoint directory.
        max_num_seqs: most sequences in one batch.
        max_num_batched_tokens: most tokens in one step, prompts and outputs together.
        kv_cache_tokens: tokens the cache holds; None lets every sequence reach the whole context, within a quarter
            of the device's memory.
        page_size: tokens per page; None takes whole sequences on a CPU unless they are very long, and small pages on a
            GPU.
        device: where the model runs, for example `cpu` or `cuda`.
        dtype: of weights and cache, for example `float32`.

    Raises:
        CheckpointError: the directory does not hold a generation model.
        ValueError: the limits contradict each other or the model's context.
    """
    model = load_gpt(path, device=device, dtype=getattr(torch, dtype))
    if device == "cpu":
        pack_linears(model)
    page_size = page_size or default_page_size(model.config, max_num_seqs, device, getattr(torch, dtype))
    if kv_cache_tokens is None:
        bytes_per_page = page_bytes(model.config, page_size, getattr(torch, dtype))
        kv_cache_tokens = default_cache_tokens(model.config, page_size, bytes_per_page, max_num_seqs, device)
    pool = PagePool(num_pages=kv_cache_tokens // page_size, page_size=page_size)
    scheduler = Scheduler(
        pool,
        block_size=model.config.block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    return Engine(scheduler, GPTRunner(model, num_pages=pool.num_pages, page_size=page_size))


def default_page_size(config: GPTConfig, max_num_seqs: int, device: str, dtype: torch.dtype) -> int:
    """A page per sequence on a CPU, where attention then reads in place; smaller ones where memory is too dear."""
    if device != "cpu":
        return min(GPU_PAGE_SIZE, config.block_size)
    needed = min(max_num_seqs, FEW_SEQUENCES) * page_bytes(config, config.block_size, dtype)
    return config.block_size if needed <= CACHE_SHARE * memory_bytes(device) else min(LONG_PAGE_SIZE, config.block_size)


def default_cache_tokens(config: GPTConfig, page_size: int, bytes_per_page: int, max_num_seqs: int, device: str) -> int:
    """Enough for every sequence to reach the whole context, cut to a share of memory, never below one sequence."""
    pages_per_sequence = -(-config.block_size // page_size)
    affordable = int(CACHE_SHARE * memory_bytes(device)) // bytes_per_page
    return page_size * max(pages_per_sequence, min(max_num_seqs * pages_per_sequence, affordable))


def memory_bytes(device: str) -> int:
    """All memory of the device, or what the control group allows of it (cgroup v2)."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return physical if allowed == "max" else min(physical, int(allowed))
