"""Processes that live and die: the real supervisor around a worker without a model."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.program import Program, poll, run_program

pytestmark = pytest.mark.slow

Start = Callable[..., AbstractContextManager[tuple[Program, httpx.Client]]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start the scripted server in a mode, with settings; a client and the program come back."""

    @contextmanager
    def begin(mode: str = "plain", **settings: object) -> Iterator[tuple[Program, httpx.Client]]:
        flags = [f"{name}={value}" for name, value in settings.items()]
        log = tmp_path / "log"
        with run_program("-m", "tests.service.host.scripted_server", mode, *flags, log=log) as program:
            port = program.wait_for(r"port (\d+)")[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield program, client

    return begin


class Stream:
    """A streamed answer, read in a thread of its own."""

    def __init__(self, client: httpx.Client, path: str) -> None:
        self.lines: list[str] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(str(client.base_url) + path,))
        self._thread.start()
        poll(lambda: bool(self.lines) or not self._thread.is_alive(), 10, "no first line")

    def _read(self, url: str) -> None:
        try:
            with httpx.stream("GET", url, timeout=30) as response:
                for line in response.iter_lines():
                    self.lines.append(line)
        except httpx.HTTPError as error:
            self.error = error

    def join(self, timeout_s: float = 10.0) -> list[str]:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the stream hangs"
        return self.lines


def is_healthy(client: httpx.Client) -> bool:
    return client.get("/health").status_code == 200


def test_the_port_answers_503_while_the_worker_loads(start: Start) -> None:
    with start("slow") as (program, client):
        assert (client.get("/health").text, client.get("/health").status_code) == ("loading", 503)
        program.wait_for("ready")
        poll(lambda: is_healthy(client), 10, "not healthy")


def test_a_worker_that_cannot_load_ends_the_service_with_a_reason(start: Start) -> None:
    with start("broken") as (program, _):
        assert program.wait() == 1
        output = program.log.read_text()
        assert "these weights are broken" in output
        assert "worker generate could not start" in output
        assert "ready" not in output.splitlines()


def test_a_service_can_be_ended_while_it_loads(start: Start) -> None:
    with start("slow", drain_delay_s=0) as (program, client):
        poll(lambda: client.get("/health").text == "loading", 10, "no answer")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert "ready" not in program.log.read_text().splitlines()


def test_a_killed_worker_fails_its_requests_and_is_replaced(start: Start) -> None:
    with start() as (program, client):
        program.wait_for("ready")
        stream = Stream(client, "/count?n=3000")
        (worker,) = program.workers
        worker.kill()
        assert stream.join(5)[-1] == "worker died"
        poll(lambda: is_healthy(client), 20, "not healthy again")
        assert client.get("/count?n=3").text.split() == ["1", "2", "3"]
        assert program.workers[0].pid != worker.pid


def test_a_worker_that_crashes_over_a_request_answers_it(start: Start) -> None:
    with start() as (program, client):
        program.wait_for("ready")
        assert client.get("/count?n=3&prompt=crash").text.strip() == "worker died"


def test_a_worker_that_hangs_is_killed_and_replaced(start: Start) -> None:
    with start(engine_hang_s=1) as (program, client):
        program.wait_for("ready")
        assert client.get("/count?n=3&prompt=hang").text.strip() == "worker died"
        poll(lambda: is_healthy(client), 20, "not healthy again")
        assert client.get("/count?n=3").text.split() == ["1", "2", "3"]


def test_a_worker_that_dies_too_often_ends_the_service(start: Start) -> None:
    with start(max_restarts=1) as (program, client):
        program.wait_for("ready")
        assert client.get("/count?n=3&prompt=crash").text.strip() == "worker died"
        poll(lambda: is_healthy(client), 20, "not healthy again")
        assert client.get("/count?n=3&prompt=crash").text.strip() == "worker died"
        assert program.wait() == 1
        assert "dies again and again" in program.log.read_text()


def test_the_death_of_the_http_process_ends_the_service(start: Start) -> None:
    with start() as (program, _):
        program.wait_for("ready")
        program.http.kill()
        assert program.wait() == 1


@pytest.mark.parametrize("mode", ["plain", "slow"])
def test_nothing_outlives_a_main_process_that_is_killed(start: Start, mode: str) -> None:
    with start(mode) as (program, _):
        if mode == "plain":
            program.wait_for("ready")
        poll(lambda: program.workers, 10, "no worker")
        children = program.children
        program.process.kill()
        program.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_sigterm_lets_requests_finish_and_refuses_new_ones(start: Start) -> None:
    with start(drain_delay_s=0.5, drain_timeout_s=20) as (program, client):
        program.wait_for("ready")
        stream = Stream(client, "/count?n=200")
        program.send(signal.SIGTERM)
        poll(lambda: client.get("/health").status_code == 503, 10, "still ready")
        program.wait_for("shutting down: reject")
        assert client.get("/count?n=1").status_code == 503
        assert program.wait() == 0
        assert stream.join()[-1] == "200"


def test_a_signal_to_every_process_drains_all_the_same(start: Start) -> None:
    with start(drain_delay_s=0, drain_timeout_s=20) as (program, client):
        program.wait_for("ready")
        stream = Stream(client, "/count?n=200")
        for process in [psutil.Process(program.process.pid), program.http, *program.workers]:
            process.terminate()
        assert stream.join()[-1] == "200"
        assert program.wait() == 0


def test_while_unready_requests_are_still_served(start: Start) -> None:
    with start(drain_delay_s=5) as (program, client):
        program.wait_for("ready")
        program.send(signal.SIGTERM)
        program.wait_for("shutting down: unready")
        poll(lambda: client.get("/health").status_code == 503, 10, "still ready")
        assert client.get("/count?n=2").text.split() == ["1", "2"]


def test_requests_that_outlast_the_grace_period_are_aborted(start: Start) -> None:
    with start(drain_delay_s=0, drain_timeout_s=0.3) as (program, client):
        program.wait_for("ready")
        stream = Stream(client, "/count?n=3000")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert stream.join()[-1] == "shutting down"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_aborts_at_once(start: Start, signum: signal.Signals) -> None:
    with start(drain_delay_s=60, drain_timeout_s=60) as (program, client):
        program.wait_for("ready")
        stream = Stream(client, "/count?n=3000")
        program.send(signum)
        program.wait_for("shutting down")
        program.send(signum)
        assert program.wait() == 0
        assert stream.join()[-1] == "shutting down"
