"""`groundup bench-training`: which parts are measured, and the tables."""

import statistics

import torch

from training.bench import shakespeare
from training.bench.peer import load_peer
from training.bench.report import describe_machine, print_section, print_table
from training.bench.settings import PeerBenchSettings
from training.bench.text import read_texts
from training.bench.throughput import SIZES, Terms, measure
from training.machine.device import pick_device


def run(settings: PeerBenchSettings) -> None:
    """Measure and print.

    Raises:
        ValueError: the peer, the text or the device is not there.
    """
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    load_peer(settings.peer)  # fails before anything is measured
    if "shakespeare" in settings.parts and settings.data is None:
        raise ValueError("--data: the shakespeare part needs tiny Shakespeare's input.txt")
    print_section(f"Hardware: {describe_machine(pick_device(settings.device))}")
    if "throughput" in settings.parts:
        measure_throughput(settings)
    if "shakespeare" in settings.parts:
        measure_shakespeare(settings)


def measure_throughput(settings: PeerBenchSettings) -> None:
    """Print tokens per second of both at each size, and their ratio in each round."""
    terms = Terms(settings.precision, settings.compile, pick_device(settings.device), settings.seed)
    module, rows = load_peer(settings.peer), []
    for name in settings.sizes:
        size = SIZES[name]
        times = measure(size, module, terms, rounds=settings.rounds, steps=settings.steps or size.steps)
        ours, theirs = times["groundup"], times["nanoGPT"]
        tokens = size.batch_size * size.block_size
        ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(ours, theirs, strict=True))
        medians = statistics.median(ours), statistics.median(theirs)
        speeds = [f"{tokens / seconds:,.0f}" for seconds in medians]
        rows.append((name, *speeds, f"{medians[1] / medians[0]:.2f}", ratios))
    print_table(("size", "groundup, tok/s", "nanoGPT, tok/s", "ratio of medians", "of each round"), rows)


def measure_shakespeare(settings: PeerBenchSettings) -> None:
    """Print loss, wall time and CPU time of both whole runs."""
    assert settings.data is not None
    (text,) = read_texts("--data", settings.data)
    steps = settings.steps or shakespeare.STEPS
    outcomes = {
        "groundup": shakespeare.run_ours(text, steps=steps, lr=settings.lr, seed=settings.seed),
        "nanoGPT": shakespeare.run_peer(settings.peer, text, steps=steps),
    }
    rows = [(name, f"{o.loss:.3f}", f"{o.wall_s:.0f}", f"{o.cpu_s:.0f}") for name, o in outcomes.items()]
    print_table(("", "held-out loss, nats per character", "wall s", "CPU s"), rows)
