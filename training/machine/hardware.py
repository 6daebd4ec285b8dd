"""How much of a device a run uses: floating-point operations per token, the device's peak, and memory.

It knows shapes and devices; how many tokens pass in how many seconds is told by the caller.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from model.config import GPTConfig

PEAK_TFLOPS: dict[str, tuple[float, float]] = {
    "B200": (2250.0, 1100.0),
    "GH200": (989.4, 494.7),
    "H200": (989.4, 494.7),
    "H100 NVL": (835.5, 417.7),
    "H100 PCIe": (756.5, 378.0),
    "H100": (989.4, 494.7),
    "H800": (989.4, 494.7),
    "H20": (148.0, 74.0),
    "A100": (312.0, 156.0),
    "A800": (312.0, 156.0),
    "A40": (149.7, 74.8),
    "A30": (165.0, 82.0),
    "A10G": (70.0, 35.0),
    "A10": (125.0, 62.5),
    "L40S": (362.05, 183.2),
    "L40": (181.05, 90.5),
    "L4": (121.0, 60.0),
    "RTX 6000 Ada": (364.2, 182.1),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
}
"""Peak of dense matrices in 16 and in 32 bits (TF32 where there is one), the first one whose name is in the device's.

From NVIDIA's data sheets (A100: June 2021; H100: PB-11133; H200, B200, L4, L40S, A10, A30, A40, V100, T4: product data
sheets) and architecture whitepapers (GA102, Ada: RTX cards, 16 bits summed in 32). The sheets' own figures "with
sparsity" are twice these. V100 and T4 have no bfloat16: theirs is float16's.
"""

MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices by which an unknown device is measured."""


@dataclass(frozen=True, slots=True)
class Meter:
    """What relates the speed of a run to what its devices could do."""

    flops_per_token: int
    peak_flops: float
    """Of all devices together."""
    device: torch.device
    """The one whose memory is shown."""

    @classmethod
    def of(cls, config: GPTConfig, device: torch.device, *, half: bool, num_devices: int = 1) -> Self:
        """Look up or measure the devices that a model is trained on; see `peak_flops` for `half`."""
        return cls(flops_per_token(config), num_devices * peak_flops(device, half=half), device)

    def utilization(self, tokens_per_s: float) -> float:
        """Return the model FLOPs utilization (MFU): the share of the peak that the model's own operations take."""
        return tokens_per_s * self.flops_per_token / self.peak_flops

    def memory(self) -> int:
        """Return the bytes in use; see `memory_in_use`."""
        return memory_in_use(self.device)


def flops_per_token(config: GPTConfig) -> int:
    """Count the floating-point operations of one token, forward and backward.

    6 for each weight that multiplies, and 12 * layers * width * context for attention (Chowdhery et al. 2022, "PaLM",
    appendix B; after Kaplan et al. 2020, section 2.1). Embeddings are looked up, not multiplied; the output layer
    counts. Attention counts in full, as there, though a causal kernel skips half of it.
    """
    query_width = config.n_head * config.head_dim
    qkv = config.n_embd * (query_width + 2 * config.num_kv_heads * config.head_dim)
    mlp = (2 if config.family == "gpt2" else 3) * config.n_embd * config.inner_dim
    weights = config.n_layer * (qkv + query_width * config.n_embd + mlp) + config.vocab_size * config.n_embd
    return 6 * weights + 12 * config.n_layer * query_width * config.block_size


def peak_flops(device: torch.device, *, half: bool) -> float:
    """Return the floating-point operations per second that a device can do: by its name, or measured within a second.

    Args:
        half: in bfloat16; otherwise in float32 (TF32 on GPUs that have it).
    """
    if device.type == "cuda":
        known = peak_of(torch.cuda.get_device_name(device), half=half)
        if known is not None:
            return known
    return measured_flops(device, torch.bfloat16 if half else torch.float32)


def peak_of(name: str, *, half: bool) -> float | None:
    """Return the peak of a known accelerator, such as `NVIDIA H100 80GB HBM3`."""
    if re.search(r"\b(MIG|Laptop)\b", name):  # a slice, or a slower namesake
        return None
    for known, (in_16_bits, in_32_bits) in PEAK_TFLOPS.items():
        if re.search(rf"\b{known}\b", name):
            return 1e12 * (in_16_bits if half else in_32_bits)
    return None


def measured_flops(device: torch.device, dtype: torch.dtype, patience_s: float = 0.5) -> float:
    """Return what the fastest of a few products of large square matrices reaches, per second."""
    size = MATMUL_SIZE.get(device.type, 1024)
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    times: list[float] = []
    while len(times) < 3 and sum(times) < patience_s:
        wait_for(device)
        started = time.perf_counter()
        left @ right
        wait_for(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def memory_in_use(device: torch.device) -> int:
    """Return the most bytes that tensors have held on a GPU, or the resident memory of this process; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
