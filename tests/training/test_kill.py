"""Runs that are killed without warning and resumed end exactly as if nothing had happened.

Each run is a real `groundup pretrain` with dropout, accumulation, shuffling and a mixture of two texts. Compared are
every snapshot after the same number of steps (weights, optimizer, averages, generators), the metrics of every step, and
the checkpoint at the end. `GROUNDUP_KILLS=20 pytest tests/training/test_kill.py` kills more often.
"""

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.program import poll
from tests.training.running import started, started_by_torchrun, steps_in

KILLS = int(os.environ.get("GROUNDUP_KILLS", "3"))
STEPS = 200 if KILLS > 3 else 60
TIMES = {"seconds", "tokens_per_s"}
"""What a clock has measured."""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two texts to mix."""
    folder = tmp_path_factory.mktemp("texts")
    rng = random.Random(1)
    words = ["fox", "dog", "boat", "river", "seven", "children", "thunder", "owner"]
    paths = []
    for name, length in (("many", 400), ("few", 150)):
        lines = [f"The {' '.join(rng.choices(words, k=6))} number {i}." for i in range(length)]
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths


def command(texts: list[Path], out: Path, *more: str) -> list[str]:
    """Return the arguments of a run that uses everything whose position or state could be lost."""
    sizes = ["--model.n-layer=2", "--model.n-head=2", "--model.n-embd=32", "--model.block-size=32"]
    exact = ["--model.dropout=0.1", "--ema=0.98", "--batch-size=8", "--micro-batch-size=2", "--seed=7"]
    places = ["--data", ",".join(map(str, texts)), "--weights=3,1", "--out", str(out), "--vocab-size=300"]
    pace = [f"--steps={STEPS}", f"--eval-interval={STEPS // 4}", "--save-interval=10", "--keep-last=3"]
    alone = ["--device=cpu", "--num-threads=1", "--resume"]
    return ["pretrain", *places, *sizes, *exact, *pace, *alone, *more]


class Collector:
    """Copies every snapshot of a run while it lasts."""

    def __init__(self, out: Path) -> None:
        self.place = out.with_name(out.name + ".collected")
        self._source = out.with_name(out.name + ".run") / "snapshots"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._collect)

    def __enter__(self) -> "Collector":
        self.place.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _collect(self) -> None:
        while not self._is_over.wait(0.005):
            for snapshot in self._source.glob("step-*"):
                place = self.place / snapshot.name
                if not place.exists():
                    try:
                        shutil.copytree(snapshot, place.with_suffix(".part"), copy_function=os.link)
                        place.with_suffix(".part").rename(place)
                    except (OSError, shutil.Error):  # removed meanwhile
                        shutil.rmtree(place.with_suffix(".part"), ignore_errors=True)


def read_snapshot(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return numbers and tensors of a snapshot, those of each process under its file's name."""
    numbers = {n: v for n, v in json.loads((path / "state.json").read_text()).items() if n not in TIMES}
    files = sorted(path.glob("*.safetensors"))
    return numbers, {f"{file.name} {n}": tensor for file in files for n, tensor in load_file(file).items()}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run without what a clock has measured."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{n: v for n, v in record.items() if n not in TIMES} for record in records]


def assert_same_run(out: Path, reference: Path, *, steps: int = STEPS) -> None:
    """Compare two runs bit by bit."""
    collected = [{p.name: p for p in Collector(place).place.glob("step-*")} for place in (out, reference)]
    shared = sorted(collected[0].keys() & collected[1].keys())
    assert shared[-1] == f"step-{steps:08d}"
    assert len(shared) > steps / 10 / 2  # the collector may have missed some
    for name in shared:
        (ours, our_tensors), (theirs, their_tensors) = (read_snapshot(found[name]) for found in collected)
        assert ours == theirs, name
        assert our_tensors.keys() == their_tensors.keys()
        different = [n for n, tensor in our_tensors.items() if not torch.equal(tensor, their_tensors[n])]
        assert not different, f"{name}: {different[:3]} of {len(different)}"
    assert read_metrics(out / "metrics.jsonl") == read_metrics(reference / "metrics.jsonl")
    assert (out / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * KILLS)
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(texts: list[Path], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    folder, rng = tmp_path / "killed.run", random.Random(0)
    with Collector(whole), started(command(texts, whole), log_of(whole)) as run:
        run.wait()
    with Collector(killed):
        # Not in the last steps: a kill must come before the end, also where the snapshot it waits for was overlooked.
        for number, step in enumerate(sorted(rng.choices(range(STEPS - 20), k=KILLS))):
            with started(command(texts, killed), log_of(killed)) as run:
                run.wait_for_step(folder, step)
                if number % 2:  # in the middle of a snapshot
                    last = steps_in(folder) + 11
                    poll(lambda last=last: any(folder.glob("snapshots/.step-*")) or steps_in(folder) > last, 60, "none")
                else:
                    time.sleep(rng.random() * 0.05)
                run.process.send_signal(signal.SIGKILL)
                assert run.process.wait() == -signal.SIGKILL
        with started(command(texts, killed), log_of(killed)) as run:
            run.wait()
    assert_same_run(killed, whole)


@pytest.mark.slow
def test_a_killed_rank_is_survived_by_its_run(texts: list[Path], tmp_path: Path) -> None:
    """Weights shared out to two processes; torchrun starts both again, and they resume."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shared = ["--parallel=fsdp", "--steps=40", "--eval-interval=20"]
    with Collector(whole), started_by_torchrun(command(texts, whole, *shared), log_of(whole)) as run:
        run.wait()
    with Collector(killed), started_by_torchrun(command(texts, killed, *shared), log_of(killed)) as run:
        run.wait_for_step(tmp_path / "killed.run", 25)
        ranks = [c for c in psutil.Process(run.process.pid).children(recursive=True) if "groundup" in c.cmdline()]
        ranks[-1].kill()
        run.wait()
        assert log_of(killed).read_text().count("training tokens") == 2  # it was started twice
    assert_same_run(killed, whole, steps=40)
