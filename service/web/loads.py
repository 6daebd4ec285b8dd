"""Which versions of models the workers have, and which they are told to load or to free.

A version is loaded while anybody uses it: the list of served models, a request, an adapter on its weights. When a
worker begins a life without the versions it should have, it is told to load them, until it has. Runs on the event loop;
never blocks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from service import metrics
from service.host.messages import LoadModel, ModelFailed, ModelUp, ToWorker, UnloadModel, WorkerUp
from service.settings import ServiceSettings
from service.web.catalog import fingerprint
from service.web.errors import EngineUnavailable
from service.web.models import ServedModel, ServedModels, WorkerName

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
"""Before a version that could not be loaded again is tried once more; then twice as long each time."""
LONGEST_PAUSE_S = 60.0


class LoadError(Exception):
    """A worker could not load a version; the message says why, and may name its directory."""


class Sender(Protocol):
    """The way to one worker."""

    def send(self, message: ToWorker) -> None:
        """Hand a message over; must not block."""


class Loads:
    """The versions that should be loaded, and those that are."""

    def __init__(
        self,
        models: ServedModels,
        senders: Mapping[str, Sender],
        settings: ServiceSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`models` are what the workers are started with."""
        self._models = models
        self._senders = senders
        self._settings = settings
        self._sleep = sleep
        self._consumer = 0
        self._wanted: dict[str, ServedModel] = {}
        self._loaded: set[str] = set()
        self._up: set[str] = set()
        """Workers that live."""
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._restoring: dict[str, asyncio.Task[bool]] = {}
        """For what a worker began its life without: tasks that load it again, or have."""
        for model in models:
            self._want(model)

    def start(self, consumer: int) -> None:
        """Begin in the HTTP process: this is number `consumer`."""
        self._consumer = consumer
        for model in self._models:
            self._show(model, is_served=True)

    def is_loaded(self, version: str) -> bool:
        """Say whether a version takes requests."""
        return version in self._loaded

    @property
    def is_complete(self) -> bool:
        """Whether all served models take requests."""
        return all(model.version in self._loaded for model in self._models)

    async def add(self, model: ServedModel) -> None:
        """Load a version beside those that run, and serve it once it is up, in the place of what has its id.

        Raises:
            LoadError: it cannot be loaded.
            EngineUnavailable: the worker died over it, or is not up.
        """
        if model.worker not in self._up:
            raise EngineUnavailable
        self._want(model)
        try:
            await self._load(model)
        except BaseException:
            model.uses.release()
            raise
        replaced = self._models.put(model)
        if replaced is not None:
            self._retire(replaced)
        self._show(model, is_served=True)  # after the one replaced: where nothing has changed, they look alike

    def remove(self, model_id: str) -> ServedModel:
        """Serve a model no more; its version is freed when its last request has ended.

        Raises:
            UnknownModel: there is none of this id.
        """
        removed = self._models.drop(model_id)
        self._retire(removed)
        return removed

    def on_worker_up(self, message: WorkerUp) -> None:
        """Bring a worker to what it should have."""
        self._up.add(message.worker)
        for model in self._of_worker(message.worker):
            self._loaded.discard(model.version)  # which the last words of its former life may have told
            if model.version in message.models:
                self._loaded.add(model.version)
            else:
                self._restoring[model.version] = asyncio.create_task(self._restore(model))

    def on_worker_down(self, name: str) -> None:
        """Forget what a worker had; what it was loading has failed."""
        self._up.discard(name)
        for model in self._of_worker(name):
            self._loaded.discard(model.version)
            self._stop_restoring(model)
            if (waiting := self._waiting.get(model.version)) is not None and not waiting.done():
                waiting.set_exception(EngineUnavailable())

    def on_model_up(self, message: ModelUp) -> None:
        """Note that a version is loaded."""
        if message.model in self._wanted:
            self._loaded.add(message.model)
        if (waiting := self._waiting.get(message.model)) is not None and not waiting.done():
            waiting.set_result(None)

    def on_model_failed(self, message: ModelFailed) -> None:
        """Note that a version cannot be loaded."""
        if (waiting := self._waiting.get(message.model)) is not None and not waiting.done():
            waiting.set_exception(LoadError(message.reason))

    async def _restore(self, model: ServedModel) -> bool:
        """Load a version again, however often that fails, and say whether its weights are the same as before.

        An adapter waits for its base, and is given up if that has other weights now.
        """
        base = None if model.base is None else self._restoring.get(model.base.version)
        if base is not None and not await asyncio.shield(base):
            reason = "its base has changed on disk since; add it anew or remove it"
            logger.error("%s is not loaded again: %s", model.version, reason)
            return False
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._load_again(model)
            except Exception as error:  # whatever it is, it may pass
                told = "%s could not be loaded again, next try in %g s: %s"
                logger.error(told, model.version, pause_s, error, exc_info=not isinstance(error, LoadError))
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _load_again(self, model: ServedModel) -> bool:
        found = await asyncio.to_thread(fingerprint, model.checkpoint.path, self._settings, model.base)
        if found != model.fingerprint:
            logger.warning("%s has changed on disk since it was loaded first", model.version)
        await self._load(model)
        return found == model.fingerprint

    def _stop_restoring(self, model: ServedModel) -> None:
        task = self._restoring.pop(model.version, None)
        if task is not None:
            task.cancel()

    async def _load(self, model: ServedModel) -> None:
        self._waiting[model.version] = asyncio.get_running_loop().create_future()
        self._senders[model.worker].send(load_message(model, self._consumer))
        try:
            await self._waiting[model.version]
        finally:
            del self._waiting[model.version]

    def _want(self, model: ServedModel) -> None:
        self._wanted[model.version] = model
        model.uses.on_last_release = lambda: self._free(model)
        model.uses.hold()
        if model.base is not None:
            model.base.uses.hold()

    def _retire(self, model: ServedModel) -> None:
        self._show(model, is_served=False)
        model.uses.release()

    def _free(self, model: ServedModel) -> None:
        del self._wanted[model.version]
        self._loaded.discard(model.version)
        self._stop_restoring(model)
        if model.worker in self._up:
            self._senders[model.worker].send(UnloadModel(model.version))
        if model.base is not None:
            model.base.uses.release()

    def _of_worker(self, name: str) -> Iterator[ServedModel]:
        """Yield what a worker should have; an adapter comes after its base, which was wanted first."""
        return (model for model in self._wanted.values() if model.worker == name)

    def _show(self, model: ServedModel, *, is_served: bool) -> None:
        capabilities = ",".join(model.capabilities)
        labels = (model.id, model.fingerprint, self._settings.dtype, model.quantization or "none", capabilities)
        metrics.MODEL_INFO.labels(*labels).set(int(is_served))


def load_message(model: ServedModel, consumer: int = 0) -> LoadModel:
    """Write what tells a worker to load a version."""
    return LoadModel(
        consumer=consumer,
        model=model.version,
        served_id=model.id,
        path=str(model.checkpoint.path),
        tokenizer_path=str(model.tokenizer_path),
        vocab_size=model.vocab_size,
        end_ids=model.checkpoint.eos_token_ids or (model.tokenizer.eos_id,),
        base=None if model.base is None else model.base.version,
    )


def initial_loads(models: ServedModels) -> dict[WorkerName, list[LoadModel]]:
    """Sort what is served at the start by worker, every base before its adapters."""
    loads: dict[WorkerName, list[LoadModel]] = {"generate": [], "classify": []}
    for model in sorted(models, key=lambda model: model.base is not None):
        loads[model.worker].append(load_message(model))
    return loads
