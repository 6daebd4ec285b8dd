"""How the benchmarks print: markdown to standard output, with the machine they ran on."""

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch


def print_section(text: str) -> None:
    """Print a paragraph at once."""
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print_section("\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)))


def describe_machine(device: torch.device) -> str:
    """Name the processor or the GPU, cores, threads and torch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {version('torch')}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {version('torch')}"
