"""The workers: processes that hold weights. Torch is imported in `setup`, so in no other process.

A worker is made in the main process, travels to its own by pickle, loads there and hands its trade to the loop.
"""

import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from litserve import LitAPI

from model.sampling_params import SamplingParams
from service import metrics
from service.engine.engine import Engine
from service.engine.request import Request
from service.host.classification import ClassificationTrade, Score
from service.host.cpus import arrange_threads, usable_cpus
from service.host.generation import EngineModel, GenerationTrade
from service.host.lifeline import die_with_parent, obey_only_main
from service.host.loading import LoadingTrade, ModelTrade
from service.host.loop import Trade, WorkerLoop
from service.host.messages import LoadModel
from service.logs import configure_logging
from service.settings import DType, Quantization, ServiceSettings

SWITCH_S = 0.0005
"""Longest wait of the thread that computes for one that loads or compiles; Python's own is ten times as long."""

ModelT = TypeVar("ModelT")


class Worker(LitAPI, Generic[ModelT]):  # type: ignore[misc]  # LitServe carries no types
    """One process with a trade, and models that come and go."""

    binds_threads: ClassVar[bool] = False
    """Whether its threads may have a CPU each: of the workers of a service, one's."""

    def __init__(self, name: str, initial: Sequence[LoadModel], settings: ServiceSettings) -> None:
        """`initial` are the models of its first life."""
        super().__init__(api_path=f"/{name}", loop=WorkerLoop())
        self.name = name
        self._initial = tuple(initial)
        self._settings = settings

    @property
    def _num_threads(self) -> int:
        return self._settings.num_threads or usable_cpus()

    @property
    def model_names(self) -> tuple[str, ...]:
        """The versions it has when its loop begins."""
        return tuple(message.model for message in self._initial)

    def start_empty(self) -> None:
        """In its next life, wait to be told what to load: by then other models may be served."""
        self._initial = ()

    def setup(self, device: str) -> None:
        """Load, in the worker's own process. LitServe's `device` is ignored: the settings say where models run.

        An exception ends the worker.
        """
        die_with_parent()
        obey_only_main()
        configure_logging()
        arrange_threads(self._num_threads, may_bind=self.binds_threads and self._settings.device == "cpu")
        sys.setswitchinterval(SWITCH_S)
        self._trade = self.make_trade()
        if self._initial:
            self.prepare()
        for message in self._initial:
            self._trade.add(message, self._load(message))

    def trade(self) -> Trade:
        """Say what to do with messages, once loaded."""
        return LoadingTrade(self._trade, self._load, self.prepare)

    @abstractmethod
    def make_trade(self) -> ModelTrade[ModelT]:
        """Make a trade that has no models yet."""

    @abstractmethod
    def load_model(self, message: LoadModel) -> ModelT:
        """Load a model, in whatever thread; ValueErrors are for whoever asked for it."""

    def prepare(self) -> None:
        """Set this thread up to compute. A worker without models never does, and costs next to nothing."""
        import torch

        torch.set_num_threads(self._num_threads)

    def _load(self, message: LoadModel) -> ModelT:
        started_s = time.monotonic()
        model = self.load_model(message)
        metrics.MODEL_LOAD_SECONDS.labels(message.served_id).set(time.monotonic() - started_s)
        return model


class GenerationWorker(Worker[EngineModel]):
    """Holds every model that generates: those with weights of their own, each with an engine, and their adapters."""

    binds_threads = True
    _trade: GenerationTrade

    def __init__(self, initial: Sequence[LoadModel], settings: ServiceSettings) -> None:
        super().__init__("generate", initial, settings)

    def make_trade(self) -> GenerationTrade:
        return GenerationTrade(self._settings.dtype)

    def load_model(self, message: LoadModel) -> EngineModel:
        if message.base is None:
            return EngineModel(self._build_engine(message))
        from service.engine.build import build_adapter

        engine = self._trade.model(message.base).engine
        return EngineModel(engine, build_adapter(engine, Path(message.path), message.model))

    def _build_engine(self, message: LoadModel) -> Engine:
        from service.engine.build import build_engine

        limits = self._settings
        num_at_start = sum(initial.base is None for initial in self._initial)
        # What is compiled is for as many threads as this one has, and they are to be the loop's.
        with computing_with(self._num_threads) if limits.compile else nullcontext():
            engine = build_engine(
                Path(message.path),
                max_num_seqs=limits.max_num_seqs,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                prefill_chunk_tokens=limits.prefill_chunk_tokens,
                kv_cache_tokens=limits.kv_cache_tokens,
                page_size=limits.page_size,
                device=limits.device,
                dtype=limits.dtype,
                quantization=limits.quantize,
                cuda_graphs=limits.cuda_graphs,
                compile_steps=limits.compile,
                num_engines=max(num_at_start, self._trade.num_engines + 1),
            )
            _warm_up(engine)
        return engine


class ClassifyWorker(Worker[Score]):
    """Holds every classifier that has weights of its own."""

    def __init__(self, initial: Sequence[LoadModel], settings: ServiceSettings) -> None:
        super().__init__("classify", initial, settings)

    def make_trade(self) -> ClassificationTrade:
        return ClassificationTrade(
            batch_size=self._settings.classify_batch_size,
            batch_tokens=self._settings.max_num_batched_tokens,
            batch_wait_s=self._settings.classify_batch_wait_s,
        )

    def load_model(self, message: LoadModel) -> Score:
        score = load_score(Path(message.path), self._settings.device, self._settings.dtype, self._settings.quantize)
        score([[0]])
        return score


@contextmanager
def computing_with(num_threads: int) -> Iterator[None]:
    """Compute with so many threads in the thread that enters."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warm_up(engine: Engine) -> None:
    """Pay once, before the first client, for what a library sets up on its first call."""
    engine.add(Request("warm-up", [0], SamplingParams(max_tokens=2)))
    while engine.has_work:
        engine.step()


def load_score(
    path: Path, device: str = "cpu", dtype: DType = "float32", quantization: Quantization | None = None
) -> Score:
    """Load a classifier as a function from rows of ids to rows of logits; its head is never rounded."""
    import torch

    from model.checkpoint import load_classifier
    from model.cpu_linear import pack_linears

    model = load_classifier(path, device=device, dtype=getattr(torch, dtype)).eval()
    if device == "cpu":
        pack_linears(model.gpt, quantization)

    @torch.inference_mode()
    def score(rows: Sequence[Sequence[int]]) -> list[list[float]]:
        idx = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)  # (B, T)
        for row, ids in zip(idx, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        lengths = torch.tensor([len(ids) for ids in rows])  # (B,)
        logits: list[list[float]] = model(idx.to(device), lengths.to(device)).float().tolist()  # (B, num_labels)
        return logits

    return score
