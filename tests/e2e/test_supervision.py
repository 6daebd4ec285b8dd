"""Workers that are killed or stop: nobody waits for ever, and the service heals itself."""

import shutil
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import Serve, Server, start_server
from tests.e2e.streams import Stream, completion
from tests.program import poll

pytestmark = pytest.mark.slow

SHORT = {"model": "tiny-base", "prompt": "A boat", "max_tokens": 5, "seed": 1}


class Post:
    """A plain request in a thread of its own."""

    def __init__(self, server: Server, path: str, body: dict[str, object]) -> None:
        self._answers: list[httpx.Response] = []
        self._thread = threading.Thread(
            target=lambda: self._answers.append(httpx.post(server.url + path, json=body, timeout=60))
        )
        self._thread.start()

    def join(self) -> httpx.Response:
        self._thread.join(60)
        assert self._answers, "no answer"
        return self._answers[0]


def is_ready(server: Server) -> bool:
    return server.client.get("/readyz").status_code == 200


def metric(server: Server, name: str) -> float:
    """Sum a metric over its labels."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def test_a_killed_worker_answers_everything_it_had_and_comes_back(serve: Serve) -> None:
    with serve("tiny-base", max_num_seqs=1) as server:
        before = server.client.post("/v1/completions", json=SHORT).json()["choices"]
        stream = Stream(server.url, completion(400))
        num_waiting = metric(server, "vllm:num_requests_waiting")
        post = Post(server, "/v1/completions", completion(64))
        poll(lambda: metric(server, "vllm:num_requests_waiting") > num_waiting, 30, "the request did not arrive")
        (worker,) = server.program.workers
        worker.kill()

        *_, error, done = stream.join()
        assert (error["error"]["type"], error["error"]["code"], done) == ("server_error", "internal_error", "[DONE]")
        answer = post.join()
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"

        refused = server.client.post("/v1/completions", json=SHORT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
        poll(lambda: is_ready(server), 60, "not ready again")
        assert server.client.post("/v1/completions", json=SHORT).json()["choices"] == before
        assert metric(server, "vllm:num_requests_running") == metric(server, "vllm:num_requests_waiting") == 0
        assert metric(server, "groundup_worker_restarts_total") == 1


def test_a_model_that_cannot_be_loaded_again_is_tried_until_it_can(tiny_checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoints / "tiny-base", tmp_path / "tiny-base")
    weights = tmp_path / "tiny-base" / "model.safetensors"
    content = weights.read_bytes()
    with start_server(tmp_path, tmp_path / "log", "tiny-base") as server:
        before = server.client.post("/v1/completions", json=SHORT).json()["choices"]
        weights.write_bytes(content[:-100])
        (worker,) = server.program.workers
        worker.kill()
        server.program.wait_for("tiny-base could not be loaded again, next try in 2 s: .*model.safetensors")
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/livez").status_code == 200
        assert server.client.post("/v1/completions", json=SHORT).status_code == 503
        weights.write_bytes(content)
        poll(lambda: is_ready(server), 30, "not ready again")
        assert server.client.post("/v1/completions", json=SHORT).json()["choices"] == before


def test_the_death_of_one_worker_leaves_the_other_at_work(serve: Serve) -> None:
    with serve("tiny-base", "tiny-spam") as server:
        generate, classify = sorted(server.program.workers, key=lambda process: process.pid)
        classify.kill()
        poll(lambda: not is_ready(server), 10, "still ready")
        assert server.client.post("/v1/completions", json=SHORT).status_code == 200
        assert generate.is_running()
        poll(lambda: is_ready(server), 60, "not ready again")
        assert server.client.post("/classify", json={"input": "hello"}).status_code == 200


def test_only_workers_hold_torch(server: Server) -> None:
    def has_torch(pid: int) -> bool:
        return "libtorch" in "".join(mapped.path for mapped in psutil.Process(pid).memory_maps())

    assert not has_torch(server.program.process.pid)
    assert not has_torch(server.program.http.pid)
    assert [has_torch(worker.pid) for worker in server.program.workers] == [True, True]


def test_an_idle_service_uses_hardly_any_cpu(server: Server) -> None:
    processes = [psutil.Process(server.program.process.pid), *server.program.children]

    def cpu_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before_s = cpu_s()
    threading.Event().wait(3)
    assert cpu_s() - before_s < 0.3
