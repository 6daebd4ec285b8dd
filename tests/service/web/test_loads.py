"""Versions of models: loaded while anybody uses them, and brought back to a worker that starts again."""

import asyncio
import dataclasses
from collections.abc import Coroutine
from pathlib import Path

import pytest

from service.host.messages import LoadModel, ModelFailed, ModelUp, ToWorker, UnloadModel, WorkerUp
from service.settings import ServiceSettings
from service.web.errors import EngineUnavailable
from service.web.loads import LoadError, Loads
from service.web.models import ServedModel, ServedModels, Uses


class Worker:
    """Notes what it is told, and answers when it is asked to."""

    def __init__(self) -> None:
        self.told: list[ToWorker] = []

    def send(self, message: ToWorker) -> None:
        self.told.append(message)

    @property
    def names(self) -> list[tuple[str, str]]:
        kinds = {LoadModel: "load", UnloadModel: "unload"}
        return [(kinds[type(message)], message.model) for message in self.told]  # type: ignore[index, union-attr]


@dataclasses.dataclass
class Bench:
    """A base and an adapter of it, loaded."""

    models: ServedModels
    loads: Loads
    worker: Worker

    def version(self, of: str, version: str, base: ServedModel | None = None) -> ServedModel:
        model = self.models.get(of)
        return dataclasses.replace(model, version=version, base=base or model.base, uses=Uses())

    def run(self, change: Coroutine[None, None, None], *answers: ModelUp | ModelFailed) -> None:
        """Carry a change out; the worker answers once it has been told."""

        async def main() -> None:
            task = asyncio.create_task(change)
            await asyncio.sleep(0)
            for answer in answers:
                if isinstance(answer, ModelUp):
                    self.loads.on_model_up(answer)
                else:
                    self.loads.on_model_failed(answer)
            await asyncio.wait_for(task, 10)

        asyncio.run(main())


@pytest.fixture
def bench(models: ServedModels, checkpoint_paths: tuple[Path, ...]) -> Bench:
    base = dataclasses.replace(models.get("tiny-base"), uses=Uses())
    adapter = dataclasses.replace(base, id="adapter", version="adapter", base=base, uses=Uses())
    served = ServedModels([base, adapter])
    worker = Worker()
    loads = Loads(served, {"generate": worker}, ServiceSettings(checkpoints=checkpoint_paths))
    loads.on_worker_up(WorkerUp("generate", 1, ("tiny-base", "adapter")))
    assert loads.is_complete
    assert worker.told == []
    return Bench(served, loads, worker)


def test_an_id_means_the_new_version_once_that_is_up(bench: Bench) -> None:
    old, new = bench.models.get("tiny-base"), bench.version("tiny-base", "second")
    adding = bench.loads.add(new)
    bench.run(adding, ModelUp("second"))
    assert bench.models.get("tiny-base") is new
    assert bench.worker.names == [("load", "second")], "the adapter still needs the old one"
    assert bench.loads.is_loaded(old.version)
    bench.loads.remove("adapter")
    assert bench.worker.names == [("load", "second"), ("unload", "adapter"), ("unload", "tiny-base")]


def test_a_version_is_freed_after_the_last_request_on_it(bench: Bench) -> None:
    request = bench.models.get("adapter")
    request.uses.hold()
    bench.loads.remove("adapter")
    assert bench.worker.told == []
    assert bench.loads.is_loaded("adapter")
    request.uses.release()
    assert bench.worker.names == [("unload", "adapter")]


def test_a_version_that_cannot_be_loaded_changes_nothing(bench: Bench) -> None:
    old = bench.models.get("adapter")
    assert old.base is not None
    num_uses = old.base.uses.count
    with pytest.raises(LoadError, match="too large"):
        bench.run(bench.loads.add(bench.version("adapter", "second")), ModelFailed("second", "too large"))
    assert bench.models.get("adapter") is old
    assert old.base.uses.count == num_uses


def test_a_worker_that_starts_again_is_told_to_load_bases_first(bench: Bench) -> None:
    bench.loads.on_worker_down("generate")
    assert not bench.loads.is_complete
    bench.loads.on_worker_up(WorkerUp("generate", 2))
    assert bench.worker.names == [("load", "tiny-base"), ("load", "adapter")]
    for name in ("tiny-base", "adapter"):
        assert not bench.loads.is_complete
        bench.loads.on_model_up(ModelUp(name))
    assert bench.loads.is_complete


def test_what_a_dead_worker_had_said_last_does_not_count_for_its_successor(bench: Bench) -> None:
    bench.loads.on_worker_down("generate")
    bench.loads.on_model_up(ModelUp("tiny-base"))
    bench.loads.on_worker_up(WorkerUp("generate", 2))
    assert not bench.loads.is_loaded("tiny-base")


def test_a_worker_that_dies_over_a_model_fails_it_and_does_not_get_it_again(bench: Bench) -> None:
    async def main() -> None:
        adding = asyncio.create_task(bench.loads.add(bench.version("tiny-base", "second")))
        await asyncio.sleep(0)
        bench.loads.on_worker_down("generate")
        with pytest.raises(EngineUnavailable):
            await adding

    asyncio.run(main())
    with pytest.raises(EngineUnavailable):
        bench.run(bench.loads.add(bench.version("tiny-base", "third")))
    bench.worker.told.clear()
    bench.loads.on_worker_up(WorkerUp("generate", 2))
    assert bench.worker.names == [("load", "tiny-base"), ("load", "adapter")]
