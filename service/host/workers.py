"""The workers: processes that hold weights. Torch is imported in `setup`, so in no other process.

A worker is made in the main process, travels to its own by pickle, loads there and hands its trade to the loop.
"""

import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from litserve import LitAPI

from model.directory import Checkpoint
from model.sampling_params import SamplingParams
from service import metrics
from service.engine.engine import Engine
from service.engine.request import Request
from service.host.classification import ClassificationTrade, Score
from service.host.generation import EngineModel, GenerationTrade
from service.host.lifeline import die_with_parent, obey_only_main
from service.host.loop import Trade, WorkerLoop
from service.logs import configure_logging
from service.settings import DType, ServiceSettings


class Worker(LitAPI):  # type: ignore[misc]  # LitServe carries no types
    """One process with a trade."""

    def __init__(self, name: str) -> None:
        super().__init__(api_path=f"/{name}", loop=WorkerLoop())
        self.name = name

    def setup(self, device: str) -> None:
        """Load, in the worker's own process. LitServe's `device` is ignored: the settings say where models run."""
        die_with_parent()
        obey_only_main()
        configure_logging()
        # Set before torch is imported: threads that wait for each other must not spin, for other processes of the
        # service need the same CPUs.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.load()

    @abstractmethod
    def load(self) -> None:
        """Load the weights; an exception ends the worker."""

    @abstractmethod
    def trade(self) -> Trade:
        """Say what to do with messages, once loaded."""


class GenerationWorker(Worker):
    """Holds every model that generates, each with an engine of its own."""

    def __init__(self, checkpoints: Sequence[Checkpoint], settings: ServiceSettings) -> None:
        super().__init__("generate")
        self._checkpoints = checkpoints
        self._settings = settings
        self._models: dict[str, EngineModel] = {}

    def load(self) -> None:
        from service.engine.build import build_engine

        limits = self._settings
        _limit_threads(limits.num_threads)
        for checkpoint in self._checkpoints:
            started_s = time.monotonic()
            engine = build_engine(
                checkpoint.path,
                max_num_seqs=limits.max_num_seqs,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                kv_cache_tokens=limits.kv_cache_tokens,
                page_size=limits.page_size,
                device=limits.device,
                dtype=limits.dtype,
            )
            _warm_up(engine)
            pool = engine.scheduler.pool
            cache_shape = (str(pool.page_size), str(pool.num_pages), limits.dtype)
            metrics.CACHE_CONFIG.labels(checkpoint.name, metrics.ENGINE, *cache_shape).set(1)
            self._models[checkpoint.name] = EngineModel(engine, checkpoint.eos_token_ids)
            metrics.MODEL_LOAD_SECONDS.labels(checkpoint.name).set(time.monotonic() - started_s)

    def trade(self) -> Trade:
        return GenerationTrade(self._models)


class ClassifyWorker(Worker):
    """Holds every classifier."""

    def __init__(self, checkpoints: Sequence[Checkpoint], settings: ServiceSettings) -> None:
        super().__init__("classify")
        self._checkpoints = checkpoints
        self._settings = settings
        self._scores: dict[str, Score] = {}

    def load(self) -> None:
        _limit_threads(self._settings.num_threads)
        for checkpoint in self._checkpoints:
            started_s = time.monotonic()
            score = load_score(checkpoint.path, self._settings.device, self._settings.dtype)
            score([[0]])
            self._scores[checkpoint.name] = score
            metrics.MODEL_LOAD_SECONDS.labels(checkpoint.name).set(time.monotonic() - started_s)

    def trade(self) -> Trade:
        return ClassificationTrade(
            self._scores,
            batch_size=self._settings.classify_batch_size,
            batch_tokens=self._settings.max_num_batched_tokens,
            batch_wait_s=self._settings.classify_batch_wait_s,
        )


def _warm_up(engine: Engine) -> None:
    """Pay once, before the first client, for what a library sets up on its first call."""
    engine.add(Request("warm-up", [0], SamplingParams(max_tokens=2)))
    while engine.has_work:
        engine.step()


def load_score(path: Path, device: str = "cpu", dtype: DType = "float32") -> Score:
    """Load a classifier as a function from rows of ids to rows of logits."""
    import torch

    from model.checkpoint import load_classifier

    model = load_classifier(path, device=device, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def score(rows: Sequence[Sequence[int]]) -> list[list[float]]:
        idx = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)  # (B, T)
        for row, ids in zip(idx, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        lengths = torch.tensor([len(ids) for ids in rows])  # (B,)
        logits: list[list[float]] = model(idx.to(device), lengths.to(device)).float().tolist()  # (B, num_labels)
        return logits

    return score


def usable_cpus(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the CPUs this process may use: its affinity, or less where its control group has a quota (cgroup v2)."""
    num_cpus = len(os.sched_getaffinity(0))
    quota, period = cpu_max.read_text().split() if cpu_max.exists() else ("max", "1")
    return num_cpus if quota == "max" else max(1, min(num_cpus, int(quota) // int(period)))


def _limit_threads(num_threads: int | None) -> None:
    import torch

    torch.set_num_threads(num_threads or usable_cpus())
