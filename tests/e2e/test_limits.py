"""A full queue and passed deadlines, on a real server with one slot."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, start_server
from tests.program import poll

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"model": "long", "prompt": [7], "max_tokens": 4000, "ignore_eos": True}
SHORT: dict[str, Any] = {"model": "long", "prompt": [7], "max_tokens": 1}


@pytest.fixture(scope="module")
def narrow_server(long_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One slot, one place in the queue, half a second of patience."""
    settings = {"max_num_seqs": 1, "max_waiting_requests": 1, "queue_timeout_s": 0.5}
    log = tmp_path_factory.mktemp("narrow") / "server.log"
    with start_server(long_checkpoint.parent, log, long_checkpoint.name, **settings) as server:
        yield server


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["code"]


def test_one_too_many_is_refused_and_one_too_patient_times_out(narrow_server: Server) -> None:
    server = narrow_server
    waited: list[httpx.Response] = []
    with server.client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as running:
        chunks = running.iter_raw()  # kept, since dropping it closes the connection
        assert next(chunks)
        waiter = threading.Thread(
            target=lambda: waited.append(httpx.post(f"{server.url}/v1/completions", json=SHORT, timeout=60))
        )
        waiter.start()
        poll(lambda: " 1.0" in waiting_line(server), 10, "nobody waits")
        refused = server.client.post("/v1/completions", json=SHORT)
        waiter.join(30)
    assert error_of(refused) == (503, "server_error", "server_overloaded")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert error_of(waited[0]) == (503, "server_error", "queue_timeout")
    assert 0 < int(waited[0].headers["retry-after"]) <= 60
    poll(lambda: server.client.post("/v1/completions", json=SHORT).status_code == 200, 10, "the slot stays taken")


def test_deadline_while_generating_is_504_and_not_to_be_retried(narrow_server: Server) -> None:
    headers = {"x-request-timeout-ms": "300"}
    response = narrow_server.client.post("/v1/completions", json=LONG, headers=headers)
    assert error_of(response) == (504, "server_error", "timeout")
    assert response.headers["x-should-retry"] == "false"


def test_deadline_inside_a_stream_is_its_last_event(narrow_server: Server) -> None:
    headers = {"x-request-timeout-ms": "300"}
    response = narrow_server.client.post("/v1/completions", json=LONG | {"stream": True}, headers=headers)
    assert response.status_code == 200
    *_, error, done, end = response.text.split("\n\n")
    assert '"code":"timeout"' in error
    assert (done, end) == ("data: [DONE]", "")


def waiting_line(server: Server) -> str:
    page = server.client.get("/metrics").text
    return next((line for line in page.splitlines() if line.startswith("vllm:num_requests_waiting{")), "")
