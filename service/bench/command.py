"""`groundup bench`: what is run, and in which order.

Runs are interleaved and repeated (`service.bench.timing`); no prompt comes twice, so nothing is found in a cache.
"""

import itertools
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.directory import read_checkpoint
from service.bench.over_http import Server, serving
from service.bench.prompts import make_prompts
from service.bench.timing import Timings, rate_table, ratio_table, rest
from service.settings import BenchSettings

if TYPE_CHECKING:
    from service.bench.contenders import Contender

MEBIBYTE = 2**20
OUR_EXACT = "engine float32"


def run(settings: BenchSettings) -> None:
    """Measure and print markdown.

    Raises:
        ValueError: a package that only the benchmark needs is missing, or a peer does not fit the settings.
    """
    if find_spec("transformers") is None:
        raise ValueError("bench compares with transformers: pip install 'groundup[dev]'")
    if settings.openvino is not None and settings.checkpoint is None:
        raise ValueError("--openvino holds the weights of one checkpoint: name it with --checkpoint")
    if settings.latency:
        measure_latency(settings)
        return
    with _checkpoint(settings) as path:
        print_section(f"Hardware: {describe_machine(settings.device)}\nCommand: `{command_line()}`")
        if settings.curves:
            measure_curves(path, settings)
            return
        settings = _with_a_cache_soon_full(path, settings)
        measure_side_by_side(path, settings)
        if settings.http:
            measure_over_http(path, settings)


def _with_a_cache_soon_full(path: Path, settings: BenchSettings) -> BenchSettings:
    """Give the engine, unless told otherwise, a cache that a warm-up fills: a server is measured as it is after hours.

    Memory that was never written must first be cleared by the system (docs/benchmarks.md says how long that takes).
    """
    if settings.kv_cache_tokens is not None or settings.device != "cpu":
        return settings
    from service.engine.memory import PAGE_SIZE

    page_size = settings.page_size or PAGE_SIZE
    num_pages = max(settings.concurrency) * -(-(settings.prompt_tokens + settings.new_tokens) // page_size)
    num_pages = max(-(-read_checkpoint(path).config.block_size // page_size), num_pages + num_pages // 16)
    return settings.model_copy(update={"kv_cache_tokens": num_pages * page_size})


def measure_side_by_side(path: Path, settings: BenchSettings) -> None:
    """Print tokens per second of every contender at each number of requests, and what they are to each other."""
    from service.bench.apart import Apart
    from service.bench.contenders import OurEngine, Transformers
    from service.bench.peers import find_peers, list_missing

    is_cpu = settings.device == "cpu"
    engines: list[tuple[Any, ...]] = [(OurEngine, path, settings, number_type) for number_type in settings.types]
    if not is_cpu and "bfloat16" in settings.types:
        engines.append((OurEngine, path, settings, "bfloat16", False))
        print_section(f"The device copies {copy_rate(settings.device) / 1e12:.2f} TB/s, which bounds a decode step.")
    others = [Transformers, *(find_peers(settings) if settings.peers and is_cpu else ())]
    with ExitStack() as stack:
        ours = [stack.enter_context(Apart(*engine)) for engine in engines]
        peers = [stack.enter_context(Apart(peer, path, settings)) for peer in others]
        timings, num_equal, num_compared = time_side_by_side([*ours, *peers], settings)

    names = [contender.name for contender in (*ours, *peers)]
    pairs = [(mine.name, peer.name) for mine, peer in itertools.product(ours, peers)]
    for title, rates in (("prompts included", timings.rates), ("after the first token", timings.decode_rates)):
        print_section(f"Tokens per second, {title}:")
        print_section(rate_table(rates, names, settings.concurrency))
        print_section(ratio_table(rates, pairs, settings.concurrency))
    if num_compared:
        print_section(f"Sequences with the same ids from float32 and transformers: {num_equal} of {num_compared}.")
    if settings.peers and is_cpu and (missing := list(list_missing(settings))):
        print_section("\n".join(f"Not measured: {hint}" for hint in missing))


def time_side_by_side(contenders: Sequence["Contender"], settings: BenchSettings) -> tuple[Timings, int, int]:
    """Run all contenders in turn.

    Returns:
        What they took, how many sequences had the same ids from transformers and our float32, and of how many.
    """
    timings = Timings(settings.new_tokens)
    num_equal = num_compared = 0
    fresh = itertools.count()
    for count, contender in itertools.product(settings.concurrency, contenders):
        contender.run(_prompts(settings, count, next(fresh)), settings.new_tokens)  # the first call sets things up
    for _, count in itertools.product(range(settings.repeats), settings.concurrency):
        short, long = (_prompts(settings, count, next(fresh)) for _ in range(2))
        outputs = {}
        for contender in contenders:
            rest()
            first_s, _ = contender.run(short, 1)
            whole_s, outputs[contender.name] = contender.run(long, settings.new_tokens)
            timings.add(contender.name, count, whole_s, first_s)
        if OUR_EXACT in outputs and settings.device == "cpu":
            both = zip(outputs[OUR_EXACT], outputs["transformers"], strict=True)
            num_equal += sum(mine == theirs for mine, theirs in both)
            num_compared += count
    return timings, num_equal, num_compared


def measure_over_http(path: Path, settings: BenchSettings) -> None:
    """Print what is left of the engine's speed behind HTTP, llama.cpp's server beside it, and ours at rest."""
    from service.bench.apart import Apart
    from service.bench.contenders import OurEngine
    from service.bench.llama_server import llama_serving

    count = max(settings.concurrency)
    weight_bytes = (path / "model.safetensors").stat().st_size
    with ExitStack() as stack:
        engines = [stack.enter_context(Apart(OurEngine, path, settings, number_type)) for number_type in settings.types]
        servers = [stack.enter_context(serving(path, settings, number_type)) for number_type in settings.types]
        fresh_bytes = servers[0].worker_bytes()
        idle = servers[0].idle_cpu_share()
        peers: list[Server] = []
        if settings.peers and settings.llama_server is not None:
            for slots in (None, count):
                peers.append(stack.enter_context(llama_serving(settings.llama_server, path, settings, slots)))
        timings = Timings(settings.new_tokens)
        fresh = itertools.count(10**6)
        for engine in engines:
            engine.run(_prompts(settings, count, next(fresh)), settings.new_tokens)
        for server in (*servers, *peers):
            server.run(_prompts(settings, count, next(fresh)), settings.new_tokens)
        for _ in range(settings.repeats):
            prompts = _prompts(settings, count, next(fresh))  # nobody's cache holds them
            for engine in engines:
                rest()
                timings.add(engine.name, count, engine.run(prompts, settings.new_tokens)[0])
            for server in (*servers, *peers):
                rest()
                timings.add(server.name, count, server.run(prompts, settings.new_tokens))
    names = [*(engine.name for engine in engines), *(server.name for server in (*servers, *peers))]
    pairs = [(server.name, engine.name) for server, engine in zip(servers, engines, strict=True)]
    pairs += [(server.name, peer.name) for server, peer in itertools.product(servers, peers)]
    print_section("Tokens per second over HTTP, prompts included:")
    print_section(rate_table(timings.rates, names, [count]))
    print_section(ratio_table(timings.rates, pairs, [count]))
    print_section(
        f"Our server at rest, {settings.types[0]}: {100 * idle:.1f}% of one CPU over all its processes. Its worker, "
        f"when ready, held {fresh_bytes / MEBIBYTE:.0f} MiB of memory of its own; the weights in float32 are "
        f"{weight_bytes / MEBIBYTE:.0f} MiB."
    )


def measure_latency(settings: BenchSettings) -> None:
    """Print how long tokens keep one waiting."""
    import torch

    from service.bench.latency import (
        first_token_table,
        make_model,
        measure_head_of_line,
        measure_shared_prefix,
        waiting_table,
    )

    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    print_section(f"Hardware: {describe_machine(settings.device)}\nCommand: `{command_line()}`")
    model = make_model(settings)
    print_section(waiting_table(measure_head_of_line(model, settings)))
    print_section(first_token_table(measure_shared_prefix(model, settings)))


def measure_curves(path: Path, settings: BenchSettings) -> None:
    """Print and draw how speed depends on the length of the context and on the number of requests."""
    from service.bench.contenders import OurEngine
    from service.bench.curves import STREAMS, curve_table, draw_curves, over_contexts, over_streams

    wide = settings.model_copy(update={"concurrency": STREAMS})
    engines = [OurEngine(path, wide, number_type) for number_type in settings.types]
    for title, measure in (("tokens of the prompt", over_contexts), ("requests at once", over_streams)):
        points = {engine.name: measure(engine, settings) for engine in engines}
        print_section(curve_table(title, points))
        if settings.plots is not None:
            settings.plots.mkdir(parents=True, exist_ok=True)
            draw_curves(settings.plots / f"{title.replace(' ', '-')}.png", title, points)


def describe_machine(device: str = "cpu") -> str:
    """Name the processor, threads and versions."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = match[1] if match else platform.processor()
    if device != "cpu":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def copy_rate(device: str) -> float:
    """Bytes a second that a GPU reads and writes in copying a gibibyte."""
    import torch

    source = torch.zeros(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    target.copy_(source)
    start.record()
    for _ in range(10):
        target.copy_(source)
    end.record()
    end.synchronize()
    elapsed_ms: float = start.elapsed_time(end)
    return 10 * 2 * source.numel() / (elapsed_ms / 1000)


def command_line() -> str:
    return " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])


def print_section(text: str) -> None:
    sys.stdout.write(f"{text}\n\n")
    sys.stdout.flush()


def _prompts(settings: BenchSettings, count: int, seed: int) -> list[list[int]]:
    return make_prompts(settings.preset, count, settings.prompt_tokens, seed)


@contextmanager
def _checkpoint(settings: BenchSettings) -> Iterator[Path]:
    """Have the random weights on disk, and the number of threads set."""
    import torch

    from service.bench.random_gpt2 import save_random_gpt2

    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        path = settings.checkpoint or Path(folder) / "random-gpt2"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_random_gpt2(path, settings.preset)
        yield path
