"""Models that come and go while others run: each is loaded in a thread, one after another, and joins between two turns.

The thread gives way: it is only one, of low priority, so that streams go on while weights are read. What a model is,
and how it is loaded, is the worker's knowledge.
"""

import gc
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.host.cpus import use_all_cpus
from service.host.loop import IDLE_TICK_S, Outbox, Trade
from service.host.messages import LoadModel, ModelFailed, ModelUp, ToWorker, UnloadModel

logger = logging.getLogger(__name__)

LOADING_TICK_S = 0.02
"""How often an otherwise idle worker looks whether a model is ready."""
LOW_PRIORITY = 10

ModelT = TypeVar("ModelT")
ModelIn = TypeVar("ModelIn", contravariant=True)


class ModelTrade(Trade, Protocol[ModelIn]):
    """A trade with models, by the names of their versions."""

    def add(self, message: LoadModel, model: ModelIn) -> None:
        """Take requests for a model from now on."""

    def remove(self, name: str, outbox: Outbox) -> None:
        """Forget a model; what it still works on fails. An unknown one is fine."""


@dataclass(slots=True)
class _Load(Generic[ModelT]):
    """A model that the thread reads."""

    message: LoadModel
    loaded: Future[ModelT]
    is_wanted: bool = True
    """Not if it is to be forgotten before it has joined."""


class LoadingTrade(Generic[ModelT]):
    """A trade whose models come and go."""

    def __init__(
        self, trade: ModelTrade[ModelT], load: Callable[[LoadModel], ModelT], prepare: Callable[[], None]
    ) -> None:
        """`load` runs in the thread; `prepare` runs in this one, quickly, before a model joins."""
        self._trade = trade
        self._load = load
        self._prepare = prepare
        self._thread: ThreadPoolExecutor | None = None
        self._queue: deque[LoadModel] = deque()
        self._under_way: _Load[ModelT] | None = None

    @property
    def patience_s(self) -> float:
        return min(self._trade.patience_s, LOADING_TICK_S if self._under_way or self._queue else IDLE_TICK_S)

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Begin to load a model, forget one, or leave the message to the trade."""
        if isinstance(message, LoadModel):
            self._queue.append(message)
        elif isinstance(message, UnloadModel):
            self._forget(message.model, outbox)
        else:
            self._trade.take(message, outbox)

    def work(self, outbox: Outbox) -> None:
        """Let loaded models join, then do the trade's work."""
        if self._under_way is not None and self._under_way.loaded.done():
            self._finish(self._under_way, outbox)
            self._under_way = None
        if self._under_way is None and self._queue:
            self._begin(self._queue.popleft())  # not before its base has joined, if that was the last
        self._trade.work(outbox)

    def _begin(self, message: LoadModel) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading", initializer=give_way)
        self._under_way = _Load(message, self._thread.submit(self._load, message))

    def _finish(self, load: _Load[ModelT], outbox: Outbox) -> None:
        message, error = load.message, load.loaded.exception()
        if not load.is_wanted:
            logger.info("%s is not needed any more", message.model)
        elif error is None:
            self._prepare()
            self._trade.add(message, load.loaded.result())
            logger.info("loaded %s", message.model)
            outbox.tell(message.consumer, ModelUp(message.model))
        else:
            logger.error("%s cannot be loaded", message.model, exc_info=error)
            is_explained = isinstance(error, ValueError)
            reason = str(error) if is_explained else "it cannot be loaded; the server's log says why"
            outbox.tell(message.consumer, ModelFailed(message.model, reason))

    def _forget(self, name: str, outbox: Outbox) -> None:
        """Let a model go, or never let it join; it says nothing more."""
        self._queue = deque(message for message in self._queue if message.model != name)
        if self._under_way is not None and self._under_way.message.model == name:
            self._under_way.is_wanted = False
        self._trade.remove(name, outbox)
        logger.info("unloaded %s", name)
        gc.collect()  # what weights are part of may refer to itself


def give_way() -> None:
    """Let the thread that calls this be the one to wait, where CPUs are scarce, and run where there is room."""
    import torch  # which takes seconds: in the other thread, the worker would seem to hang

    torch.set_num_threads(2)
    torch.zeros(1 << 20).add_(1)  # OpenMP binds a thread where it first shares out work; what is then undone, stays so
    torch.set_num_threads(1)  # of this thread alone
    use_all_cpus()
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)  # on Linux, a thread has its own
