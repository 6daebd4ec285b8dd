"""`groundup bench`: what is run, in which order, and the tables.

Everything that is compared is run in turn, again and again, and medians are reported: on a machine that others use too,
only the ratios mean anything.
"""

import itertools
import os
import platform
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from model.config import PRESETS
from service.bench.over_http import Server, serving
from service.settings import BenchSettings

MEBIBYTE = 2**20

Seconds = dict[int, list[float]]
"""Times of each run, by number of requests."""


def run(settings: BenchSettings) -> None:
    """Measure and print markdown.

    Raises:
        ValueError: a package that only the benchmark needs is missing.
    """
    try:
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise ValueError("bench compares with transformers: pip install 'groundup[dev]'") from None
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random-gpt2"
        weight_bytes = _prepare(path, settings)
        print_section(f"Hardware: {describe_machine()}\nCommand: `{command_line()}`")
        measure_beside_transformers(path, settings)
        if settings.http:
            with serving(path, settings) as server:
                measure_over_http(path, settings, server, weight_bytes)


def measure_beside_transformers(path: Path, settings: BenchSettings) -> None:
    """Print tokens per second of both and their ratio at each number of requests."""
    from service.bench.contenders import Contender, OurEngine, Transformers

    contenders: tuple[Contender, ...] = (OurEngine(path, settings), Transformers(path, settings))
    times: dict[str, Seconds] = {contender.name: {} for contender in contenders}
    num_equal = num_compared = 0
    for count, contender in itertools.product(settings.concurrency, contenders):
        contender.run(make_prompts(settings, count), 2)  # the first call of each size sets things up
    for repeat in range(settings.repeats):
        for count in settings.concurrency:
            prompts = make_prompts(settings, count, seed=repeat)
            outputs = []
            for contender in contenders:
                elapsed_s, ids = contender.run(prompts, settings.new_tokens)
                times[contender.name].setdefault(count, []).append(elapsed_s)
                outputs.append(ids)
            num_equal += sum(ours == theirs for ours, theirs in zip(*outputs, strict=True))
            num_compared += count
    print_section(ratio_table(times, settings.new_tokens, *(contender.name for contender in contenders)))
    print_section(f"Sequences with the same ids from both: {num_equal} of {num_compared}.")


def measure_over_http(path: Path, settings: BenchSettings, server: Server, weight_bytes: int) -> None:
    """Print what is left of the engine's speed behind HTTP, and what the server takes when idle."""
    from service.bench.contenders import OurEngine

    fresh_bytes = server.worker_bytes()
    count = max(settings.concurrency)
    engine = OurEngine(path, settings)
    prompts = make_prompts(settings, count)
    times: dict[str, Seconds] = {server.name: {count: []}, engine.name: {count: []}}
    engine.run(prompts, 2)
    server.run(prompts, 2)
    for repeat in range(settings.repeats):
        prompts = make_prompts(settings, count, seed=repeat)
        times[engine.name][count].append(engine.run(prompts, settings.new_tokens)[0])
        times[server.name][count].append(server.run(prompts, settings.new_tokens))
    print_section(ratio_table(times, settings.new_tokens, server.name, engine.name))
    print_section(
        f"The server at rest: {100 * server.idle_cpu_share():.1f}% of one CPU over all its processes. Its worker, when "
        f"ready, held {fresh_bytes / MEBIBYTE:.0f} MiB of memory of its own: {weight_bytes / MEBIBYTE:.0f} MiB of "
        "weights, and the interpreter with its libraries."
    )


def make_prompts(settings: BenchSettings, count: int, seed: int = 0) -> list[list[int]]:
    """Draw prompts without any common beginning."""
    rng = random.Random(seed)
    vocab_size = PRESETS[settings.preset].vocab_size
    return [[rng.randrange(vocab_size - 1) for _ in range(settings.prompt_tokens)] for _ in range(count)]


def ratio_table(times: Mapping[str, Seconds], num_new: int, ours: str, theirs: str) -> str:
    """Write medians as a markdown table, one row for each number of requests."""
    rows = [f"| requests | {ours}, tok/s | {theirs}, tok/s | ratio of medians | of each run |", "| --- " * 5 + "|"]
    for count in times[ours]:
        mine, other = times[ours][count], times[theirs][count]
        rates = [count * num_new / statistics.median(seconds) for seconds in (mine, other)]
        each = ", ".join(f"{b / a:.2f}" for a, b in zip(mine, other, strict=True))
        rows.append(f"| {count} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[0] / rates[1]:.2f} | {each} |")
    return "\n".join(rows)


def describe_machine() -> str:
    """Name CPU, threads and versions."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = match[1] if match else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def command_line() -> str:
    return " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])


def print_section(text: str) -> None:
    sys.stdout.write(f"{text}\n\n")
    sys.stdout.flush()


def _prepare(path: Path, settings: BenchSettings) -> int:
    """Write the checkpoint, set the number of threads, and return the weights' size in bytes."""
    import torch

    from service.bench.random_gpt2 import save_random_gpt2

    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    save_random_gpt2(path, settings.preset)
    return (path / "model.safetensors").stat().st_size
