"""Versions of models: loaded while anybody uses them, and brought back to a worker that starts again."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, multiprocess

from service.host.messages import LoadModel, ModelFailed, ModelUp, ToWorker, UnloadModel, WorkerUp
from service.settings import ServiceSettings
from service.web.errors import EngineUnavailable
from service.web.loads import LoadError, Loads
from service.web.models import ServedModel, ServedModels, Uses

BOTH = [("load", "tiny-base"), ("load", "adapter")]


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


class Pauses:
    """Notes how long each is to be; it ends when the test says so."""

    def __init__(self) -> None:
        self.lengths_s: list[float] = []
        self._ends = asyncio.Semaphore(0)

    async def __call__(self, length_s: float) -> None:
        self.lengths_s.append(length_s)
        await self._ends.acquire()

    def end(self) -> None:
        self._ends.release()


@dataclasses.dataclass
class Bench:
    """A base and an adapter of it, loaded."""

    models: ServedModels
    loads: Loads
    worker: Worker
    pauses: Pauses

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

    async def add(self, model: ServedModel) -> None:
        """Add a version that can be loaded."""
        adding = asyncio.create_task(self.loads.add(model))
        await asyncio.sleep(0)
        self.loads.on_model_up(ModelUp(model.version))
        await adding

    def restart(self) -> None:
        """End the worker's life and begin another."""
        self.loads.on_worker_down("generate")
        self.worker.told.clear()
        self.loads.on_worker_up(WorkerUp("generate", 2))

    async def is_told(self, *names: tuple[str, str]) -> None:
        """Wait until the worker has been told exactly this."""
        await until(lambda: len(self.worker.told) >= len(names))
        assert self.worker.names == list(names)

    async def restart_in_vain(self) -> None:
        """Begin a new life of the worker in which the base cannot be loaded at once."""
        self.restart()
        await self.is_told(BOTH[0])
        await self.fail("tiny-base")

    async def fail(self, version: str, reason: str = "no memory") -> None:
        """Let the worker fail over a version that will be tried again."""
        num_pauses = len(self.pauses.lengths_s)
        self.loads.on_model_failed(ModelFailed(version, reason))
        await until(lambda: len(self.pauses.lengths_s) > num_pauses)


async def until(question: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not question():
            await asyncio.sleep(0.001)


async def nothing_goes_on() -> None:
    """Wait until no task is left but the test's."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


def shown(model: ServedModel) -> float | None:
    """Read off /metrics whether a model is served."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    labels = {"model_name": model.id, "revision": model.fingerprint, "dtype": "float32", "quantization": "none"}
    return registry.get_sample_value("groundup_model_info", {**labels, "capabilities": ",".join(model.capabilities)})


@pytest.fixture
def bench(models: ServedModels, checkpoint_paths: tuple[Path, ...]) -> Bench:
    base = dataclasses.replace(models.get("tiny-base"), uses=Uses())
    adapter = dataclasses.replace(base, id="adapter", version="adapter", base=base, uses=Uses())
    served = ServedModels([base, adapter])
    worker = Worker()
    pauses = Pauses()
    loads = Loads(served, {"generate": worker}, ServiceSettings(checkpoints=checkpoint_paths), pauses)
    loads.on_worker_up(WorkerUp("generate", 1, ("tiny-base", "adapter")))
    assert loads.is_complete
    assert worker.told == []
    return Bench(served, loads, worker, pauses)


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


def test_what_replaces_a_version_of_the_same_content_is_shown_as_served(bench: Bench) -> None:
    old = bench.models.get("tiny-base")
    bench.loads.start(0)
    assert shown(old) == 1
    bench.run(bench.loads.add(bench.version("tiny-base", "second")), ModelUp("second"))
    assert shown(old) == 1
    bench.run(
        bench.loads.add(dataclasses.replace(bench.version("tiny-base", "third"), fingerprint="fp_other")),
        ModelUp("third"),
    )
    assert (shown(old), shown(bench.models.get("tiny-base"))) == (0, 1)
    bench.loads.remove("tiny-base")
    assert shown(dataclasses.replace(old, fingerprint="fp_other")) == 0


def test_a_worker_that_starts_again_is_told_to_load_adapters_once_their_bases_are_up(bench: Bench) -> None:
    async def main() -> None:
        bench.restart()
        await bench.is_told(BOTH[0])
        bench.loads.on_model_up(ModelUp("tiny-base"))
        await bench.is_told(*BOTH)
        assert not bench.loads.is_complete
        bench.loads.on_model_up(ModelUp("adapter"))
        assert bench.loads.is_complete
        await nothing_goes_on()

    asyncio.run(main())


def test_what_a_dead_worker_had_said_last_does_not_count_for_its_successor(bench: Bench) -> None:
    async def main() -> None:
        bench.loads.on_worker_down("generate")
        bench.loads.on_model_up(ModelUp("tiny-base"))
        bench.loads.on_model_failed(ModelFailed("adapter", "too late"))
        bench.loads.on_worker_up(WorkerUp("generate", 2))
        assert not bench.loads.is_loaded("tiny-base")

    asyncio.run(main())


def test_a_worker_that_dies_over_a_model_fails_it_and_does_not_get_it_again(bench: Bench) -> None:
    async def main() -> None:
        adding = asyncio.create_task(bench.loads.add(bench.version("tiny-base", "second")))
        await asyncio.sleep(0)
        bench.loads.on_worker_down("generate")
        bench.worker.told.clear()
        bench.loads.on_worker_up(WorkerUp("generate", 2))  # before whoever adds it has heard
        with pytest.raises(EngineUnavailable):
            await adding
        bench.restart()
        await bench.is_told(BOTH[0])
        bench.loads.on_worker_down("generate")
        with pytest.raises(EngineUnavailable):
            await bench.loads.add(bench.version("tiny-base", "third"))

    asyncio.run(main())


def test_a_version_that_cannot_be_loaded_again_is_tried_until_it_can_with_growing_pauses(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        bench.restart()
        for num_tries in range(1, 9):
            await bench.is_told(*BOTH[:1] * num_tries)  # and its adapter waits
            await bench.fail("tiny-base")
            assert not bench.loads.is_complete
            bench.pauses.end()
        await bench.is_told(*BOTH[:1] * 9)
        bench.loads.on_model_up(ModelUp("tiny-base"))
        await bench.is_told(*BOTH[:1] * 9, BOTH[1])
        await bench.fail("adapter", "no such file")
        bench.pauses.end()
        await bench.is_told(*BOTH[:1] * 9, BOTH[1], BOTH[1])
        bench.loads.on_model_up(ModelUp("adapter"))
        assert bench.loads.is_complete
        await nothing_goes_on()

    asyncio.run(main())
    assert bench.pauses.lengths_s == [1, 2, 4, 8, 16, 32, 60, 60, 1]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors[0] == "tiny-base could not be loaded again, next try in 1 s: no memory"
    assert errors[-1] == "adapter could not be loaded again, next try in 1 s: no such file"
    assert len(errors) == 9


def test_what_is_removed_while_it_cannot_be_loaded_again_is_not_tried_any_more(bench: Bench) -> None:
    async def main() -> None:
        await bench.restart_in_vain()
        bench.loads.remove("adapter")
        bench.loads.remove("tiny-base")
        await nothing_goes_on()
        assert bench.worker.names == [BOTH[0], ("unload", "adapter"), ("unload", "tiny-base")]

    asyncio.run(main())


def test_an_adapter_that_is_removed_while_it_waits_leaves_its_base_to_be_tried_again(bench: Bench) -> None:
    async def main() -> None:
        bench.restart()
        await bench.is_told(BOTH[0])
        bench.loads.remove("adapter")
        await bench.fail("tiny-base")
        bench.pauses.end()
        await bench.is_told(BOTH[0], ("unload", "adapter"), BOTH[0])
        bench.loads.on_model_up(ModelUp("tiny-base"))
        await nothing_goes_on()
        assert bench.loads.is_complete

    asyncio.run(main())


def test_what_is_replaced_while_it_cannot_be_loaded_again_is_not_tried_any_more(bench: Bench) -> None:
    async def main() -> None:
        bench.loads.remove("adapter")
        await bench.restart_in_vain()
        await bench.add(bench.version("tiny-base", "second"))
        await nothing_goes_on()
        assert bench.loads.is_complete
        assert bench.worker.names == [BOTH[0], ("load", "second"), ("unload", "tiny-base")]

    asyncio.run(main())


def test_a_worker_that_dies_between_tries_takes_them_along(bench: Bench) -> None:
    async def main() -> None:
        await bench.restart_in_vain()
        bench.loads.on_worker_down("generate")
        await nothing_goes_on()
        for _ in range(2):
            bench.restart()
            await bench.is_told(BOTH[0])  # and the next dies while it loads
        await bench.fail("tiny-base")
        bench.loads.on_worker_down("generate")
        await nothing_goes_on()

    asyncio.run(main())
    assert bench.pauses.lengths_s == [1, 1]


def test_a_directory_that_cannot_be_read_for_a_moment_is_tried_again(bench: Bench, tmp_path: Path) -> None:
    original = bench.models.get("tiny-base").checkpoint
    checkpoint = dataclasses.replace(original, path=tmp_path / "away")
    moved = dataclasses.replace(bench.version("tiny-base", "second"), checkpoint=checkpoint)

    async def main() -> None:
        bench.loads.remove("adapter")
        await bench.add(moved)
        bench.restart()
        await until(lambda: bench.pauses.lengths_s == [1])
        assert bench.worker.told == []
        (tmp_path / "away").symlink_to(original.path)
        bench.pauses.end()
        await bench.is_told(("load", "second"))
        bench.loads.on_model_up(ModelUp("second"))
        assert bench.loads.is_complete

    asyncio.run(main())


def test_an_adapter_is_not_loaded_on_a_base_that_has_other_weights_now(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    base = dataclasses.replace(bench.version("tiny-base", "second"), fingerprint="fp_before")

    async def main() -> None:
        for model in (base, bench.version("adapter", "adapter of it", base)):
            await bench.add(model)
        bench.restart()
        await bench.is_told(("load", "second"))
        bench.loads.on_model_up(ModelUp("second"))
        await nothing_goes_on()
        assert bench.worker.names == [("load", "second")]
        assert not bench.loads.is_complete

    asyncio.run(main())
    reason = "its base has changed on disk since; add it anew or remove it"
    assert caplog.messages[-1] == f"adapter of it is not loaded again: {reason}"
