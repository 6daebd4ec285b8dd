"""Print how much memory loading and saving a checkpoint takes at its peak, as a multiple of its weights.

    python -m tests.peak_memory FOLDER [PRESET] [SHARD_GB]

FOLDER receives random weights of a preset's shape (default: gpt2-xl, 6.2 GB) in float32, in shards of that size
(default: 2), and loses them again. Each figure is the peak of a process of its own less that of one that makes a tiny
model only. The last one keeps a whole copy of the weights, so that the measurement itself can be judged.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from model.checkpoint import empty, load_gpt, public_views
from model.config import PRESETS, GPTConfig
from model.directory import CONFIG_FILE, weight_files
from model.gpt import GPT
from model.public_config import config_to_public
from model.tensor_files import NamedTensor, write_tensors

PHASES = ("save", "load", "careless")


def main() -> None:
    """Print all figures."""
    folder = Path(sys.argv[1])
    preset = sys.argv[2] if len(sys.argv) > 2 else "gpt2-xl"
    shard_gb = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
    for phase, (ratio, size_bytes) in measure(folder, preset, shard_gb).items():
        print(f"{phase}: {ratio:.3f} times the {size_bytes / 1e9:.2f} GB of weights")


def measure(folder: Path, preset: str, shard_gb: float) -> dict[str, tuple[float, int]]:
    """Return the peak of each phase as a multiple of the bytes of the weights, and these bytes."""
    with torch.device("meta"):
        size_bytes = 4 * GPT(PRESETS[preset]).num_params()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        peaks = {phase: run(phase, folder, preset, shard_gb) for phase in ("tiny", *PHASES)}
    finally:
        shutil.rmtree(folder)
    return {phase: ((peaks[phase] - peaks["tiny"]) / size_bytes, size_bytes) for phase in PHASES}


def run(phase: str, folder: Path, preset: str, shard_gb: float) -> int:
    """Run one phase in a fresh process and return its peak in bytes."""
    program = f"from tests.peak_memory import {phase}_phase as p; p({str(folder)!r}, {preset!r}, {shard_gb})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def tiny_phase(_folder: str, _preset: str, _shard_gb: float) -> None:
    """Import everything and make a model of next to no size."""
    empty(lambda: GPT(PRESETS["tiny-gpt2"]))
    print_peak()


def save_phase(folder: str, preset: str, shard_gb: float) -> None:
    """Make random weights and write them."""
    config: GPTConfig = PRESETS[preset]
    model = empty(lambda: GPT(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.02)
    views = [NamedTensor(name, view, torch.float32) for name, view in public_views(model)]
    write_tensors(Path(folder), views, shard_bytes=int(shard_gb * 1e9))
    (Path(folder) / CONFIG_FILE).write_text(json.dumps(config_to_public(config)))
    print_peak()


def load_phase(folder: str, _preset: str, _shard_gb: float) -> None:
    """Load what was written."""
    load_gpt(folder)
    print_peak()


def careless_phase(folder: str, preset: str, _shard_gb: float) -> None:
    """Read all weights, then fill a model with them."""
    stored = {name: tensor for file in weight_files(Path(folder)) for name, tensor in load_file(file).items()}
    model = empty(lambda: GPT(PRESETS[preset]))
    with torch.no_grad():
        for name, view in public_views(model):
            view.copy_(stored[name])
    print_peak()


def print_peak() -> None:
    """Print the largest resident size this process ever had, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    print(int(found[1]) * 1024)


if __name__ == "__main__":
    main()
