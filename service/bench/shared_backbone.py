"""What one memory for many models saves, and what it costs: `python -m service.bench.shared_backbone`.

A base of GPT-2's size, two adapters of it and a classifier's head, once on one backbone and in one batch, once as four
models with weights of their own; and the base alone. Random weights; each arrangement has a process of its own, with
one thread. Speed is tokens per second of CPU time, which other load on the machine disturbs least.
"""

import copy
import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from model.adapter import adapter_files
from model.adapter_config import AdapterConfig
from model.adapter_directory import read_adapter
from model.checkpoint import load_gpt, load_merged, save_checkpoint
from model.classifier import GPTClassifier
from model.gpt import GPT
from model.lora import add_lora
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from service.bench.random_gpt2 import save_random_gpt2
from service.engine.build import build_adapter, build_engine
from service.engine.engine import Engine
from service.engine.request import NewToken, Request
from service.host.workers import load_score

RANK = 16
NUM_REQUESTS = 32
NUM_PROMPT = 32
NUM_NEW = 32
NUM_TEXTS = 8
REPEATS = 3
ADAPTERS = ("one", "two")
HEAD = "labels"
LABELS = ("a", "b")

Models = Sequence[str | None]
"""The adapter of each request, None for the base."""


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory(prefix="groundup-") as scratch:
        folder = Path(scratch)
        write_models(folder)
        rows = {measure.__name__: _in_a_process(measure, folder) for measure in (alone, shared, separate)}
    print("| arrangement | memory of its own, MiB | tok per CPU second |\n| --- | --- | --- |")
    for name, figures in rows.items():
        for what, speeds in figures.items():
            memory, *rates = speeds
            shown = ", ".join(f"{rate:.1f}" for rate in sorted(rates))
            print(f"| {name}: {what} | {memory:.0f} | {statistics.median(rates):.1f} ({shown}) |")


def alone(folder: Path) -> dict[str, list[float]]:
    """The base and nothing else."""
    engine = _engine(folder / "base")
    return _measure([engine], {"32 requests": lambda: _run([engine], [[None] * NUM_REQUESTS])})


def shared(folder: Path) -> dict[str, list[float]]:
    """One backbone: requests for the base and for both adapters in one batch, with and without texts for the head."""
    engine = _engine(folder / "base")
    for name in (*ADAPTERS, HEAD):
        build_adapter(engine, folder / name, name).install()
    models = [(None, *ADAPTERS)[i % 3] for i in range(NUM_REQUESTS)]
    return _measure(
        [engine],
        {
            "32 requests, all for the base": lambda: _run([engine], [[None] * NUM_REQUESTS]),
            "32 requests, a third each": lambda: _run([engine], [models]),
            "the same beside 8 texts for the head": lambda: _run([engine], [models], num_texts=NUM_TEXTS),
        },
    )


def separate(folder: Path) -> dict[str, list[float]]:
    """Each model with all its weights; engines take turns."""
    engines = [_engine(folder / name) for name in ("base", *(f"{name}-merged" for name in ADAPTERS))]
    score = load_score(folder / f"{HEAD}-merged")
    score([[1, 2, 3]])
    shares: list[Models] = [[None] * len(range(i, NUM_REQUESTS, 3)) for i in range(3)]
    return _measure(engines, {"32 requests, a third each": lambda: _run(engines, shares)})


def write_models(folder: Path) -> None:
    """Write the base, its adapters, and what they make of it."""
    save_random_gpt2(folder / "base", "gpt2-small")
    base = load_gpt(folder / "base")
    tokenizer = Tokenizer.from_directory(folder / "base")
    for name in ADAPTERS:
        _write_adapter(folder / name, copy.deepcopy(base))
    classifier = GPTClassifier(base.config, len(LABELS))
    classifier.gpt.load_state_dict(base.state_dict(), strict=False)
    _write_adapter(folder / HEAD, classifier)
    for name in (*ADAPTERS, HEAD):
        merged = load_merged(read_adapter(folder / name), folder / "base")
        labels = LABELS if isinstance(merged, GPTClassifier) else None
        save_checkpoint(folder / f"{name}-merged", merged, tokenizer, model_card="", labels=labels)


def _write_adapter(path: Path, model: GPT | GPTClassifier) -> None:
    config = AdapterConfig(rank=RANK, alpha=2 * RANK)
    add_lora(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)
    path.mkdir()
    for name, content in adapter_files(model, config).items():
        (path / name).write_bytes(content)


def _engine(path: Path) -> Engine:
    torch.set_num_threads(1)
    return build_engine(path, max_num_seqs=NUM_REQUESTS + NUM_TEXTS, max_num_batched_tokens=1024)


def _measure(engines: Sequence[Engine], cases: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return the process's memory before its caches fill, and each run's tokens per second, the cases in turn."""
    _run(engines, [[None]] * len(engines))
    gc.collect()
    memory = own_megabytes()
    for run in cases.values():
        run()
    figures = {name: [memory] for name in cases}
    for _ in range(REPEATS):
        for name, run in cases.items():
            figures[name].append(run())
    return figures


def _run(engines: Sequence[Engine], models: Sequence[Models], num_texts: int = 0) -> float:
    """Continue requests to the end, the engines in turn; return generated tokens per second of CPU time."""
    params = SamplingParams(max_tokens=NUM_NEW, temperature=0, ignore_eos=True)
    generator = torch.Generator().manual_seed(0)
    started_s = time.process_time()
    num_tokens = 0
    for engine, adapters in zip(engines, models, strict=True):
        for i, adapter in enumerate(adapters):
            ids = torch.randint(50_000, (NUM_PROMPT,), generator=generator).tolist()
            engine.add(Request(str(i), ids, params, adapter=adapter, cache_salt=str(started_s)))
        for i in range(num_texts):
            ids = torch.randint(50_000, (NUM_PROMPT,), generator=generator).tolist()
            salt = str(started_s)
            engine.add(Request(f"text {i}", ids, adapter=HEAD, pooling="last", head=HEAD, cache_salt=salt))
    while any(engine.has_work for engine in engines):
        for engine in engines:
            if engine.has_work:
                num_tokens += sum(isinstance(output, NewToken) for output in engine.step())
    return num_tokens / (time.process_time() - started_s)


def own_megabytes() -> float:
    """Memory that this process shares with no other and with no file, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


def _in_a_process(measure: Callable[[Path], dict[str, list[float]]], folder: Path) -> dict[str, list[float]]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (folder,))


if __name__ == "__main__":
    main()
