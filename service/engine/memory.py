"""How much memory there is, how much a model wants, and what is left for its cache. Asked before weights are read."""

import ctypes
import math
import os
from pathlib import Path

import torch

from model.cached_attention import PAGED_MULTIPLE
from model.config import GPTConfig
from model.convert import public_tensors

CACHE_SHARE = 0.25
"""Share of a device's memory that the caches of all engines may take when their size is not given."""
PAGE_SIZE = 16
"""Fine enough to share short prompts; neighbouring pages are read as one, so a fine grain costs little."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings, from its malloc.h."""
_LARGEST_MMAP_THRESHOLD = 32 * 2**20

_CGROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Let tensors of a step take the memory that those of the step before have left.

    glibc gives large pieces back to the system, which clears each of their pages when they are wanted again
    (docs/benchmarks.md has what that takes). With another C library nothing changes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def check_device(device: str, dtype: torch.dtype) -> None:
    """Refuse what this machine does not have.

    Raises:
        ValueError: there is no such device, or it cannot compute in this type.
    """
    if not device.startswith("cuda"):
        return
    index = torch.device(device).index or 0
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there is no such device here ({_count_devices()}); use --device cpu")
    with torch.cuda.device(index):
        if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise ValueError(f"--dtype bfloat16: {torch.cuda.get_device_name(index)} lacks it; use --dtype float32")


def check_room(config: GPTConfig, device: str, dtype: torch.dtype) -> None:
    """Refuse a model whose weights do not fit beside what runs already.

    Raises:
        ValueError: they do not; the message has both figures.
    """
    wanted, free = weight_bytes(config, dtype), free_bytes(device)
    if wanted > free:
        raise ValueError(
            f"its weights need {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free on {device}; "
            "unload another model, or use --dtype bfloat16"
        )


def weight_bytes(config: GPTConfig, dtype: torch.dtype) -> int:
    """Memory of a language model's weights."""
    return sum(math.prod(tensor.shape) for tensor in public_tensors(config)) * dtype.itemsize


def default_page_size(config: GPTConfig, device: str, dtype: torch.dtype) -> int:
    """Small pages, or those that a GPU's kernel for half precision takes."""
    is_paged_kernel = device != "cpu" and dtype != torch.float32
    return PAGED_MULTIPLE if is_paged_kernel else min(PAGE_SIZE, config.block_size)


def default_cache_tokens(
    config: GPTConfig,
    page_size: int,
    bytes_per_page: int,
    max_num_seqs: int,
    device: str,
    *,
    num_engines: int = 1,
    weights: int = 0,
) -> int:
    """Enough for every sequence to reach the whole context, cut to a share of memory, never below one sequence.

    Args:
        config: the model's shape.
        page_size: tokens per page.
        bytes_per_page: over all layers.
        max_num_seqs: most sequences in one batch.
        device: where the cache is to be.
        num_engines: how many share what caches may take.
        weights: bytes that will be taken before the cache is.
    """
    pages_per_sequence = -(-config.block_size // page_size)
    budget = CACHE_SHARE * memory_bytes(device) / num_engines
    if device != "cpu":  # there all of it is taken at once
        budget = min(budget, max(0, free_bytes(device) - weights) / 2)
    affordable = int(budget) // bytes_per_page
    return page_size * max(pages_per_sequence, min(max_num_seqs * pages_per_sequence, affordable))


def memory_bytes(device: str) -> int:
    """All memory of the device, or what the control group allows of it (cgroup v2)."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, _cgroup_limit() or physical)


def free_bytes(device: str) -> int:
    """Memory that can be had now; pages of files, which give way, count as free."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    kilobytes = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    free = int(kilobytes.split()[1]) * 1024
    limit = _cgroup_limit()
    return free if limit is None else min(free, limit - _cgroup_used())


def _cgroup_limit() -> int | None:
    file = _CGROUP / "memory.max"
    text = file.read_text().strip() if file.exists() else "max"
    return None if text == "max" else int(text)


def _cgroup_used() -> int:
    facts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    return int((_CGROUP / "memory.current").read_text()) - int(facts.get("inactive_file", 0))


def _count_devices() -> str:
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{num_devices} GPU{'s' if num_devices != 1 else ''}"
