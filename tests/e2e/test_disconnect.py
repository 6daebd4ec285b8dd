"""Clients that close their connection are out of the batch: in the queue, in prefill, in decode, under load."""

import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Server, start_server
from tests.program import poll

pytestmark = pytest.mark.slow

logger = logging.getLogger(__name__)

PROMISED_S = 1.0
"""How soon a sequence must be gone. Other work on the machine is no fault of ours, so the test waits longer."""

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


@pytest.fixture(scope="module")
def slow_server(long_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One slot, eight tokens in a step, a long context: every phase lasts long enough to leave in it."""
    settings = {"max_num_seqs": 1, "max_num_batched_tokens": 8}
    log = tmp_path_factory.mktemp("slow") / "server.log"
    with start_server(long_checkpoint.parent, log, long_checkpoint.name, **settings) as server:
        yield server


def gauges(server: Server) -> dict[str, float]:
    """Read what is under way, over all models."""
    page = server.client.get("/metrics").text
    found = {name: re.findall(rf"^vllm:{name}\{{.*\}} (\S+)$", page, re.MULTILINE) for name in GAUGES}
    return {name: sum(map(float, values)) for name, values in found.items()}


def num_disconnects(server: Server, phase: str) -> float:
    match = re.search(
        rf'groundup_client_disconnects_total\{{phase="{phase}"\}} (\S+)', server.client.get("/metrics").text
    )
    return float(match[1]) if match else 0.0


@contextmanager
def connection(server: Server, **changes: Any) -> Iterator[socket.socket]:
    """A request under way on a connection of its own; leaving the block closes it."""
    body = {"model": "long", "prompt": [7], "max_tokens": 4000, "ignore_eos": True, **changes}
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as opened:
        opened.settimeout(60)
        opened.sendall(head + content)
        yield opened


def wait_until(server: Server, **expected: float) -> float:
    """Wait for gauges to have these values; return how long it took."""
    started_s = time.monotonic()
    poll(lambda: expected.items() <= gauges(server).items(), 10 * PROMISED_S, f"no {expected}")
    return time.monotonic() - started_s


IDLE = {"num_requests_running": 0.0, "num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
def test_client_that_leaves_is_out_of_the_batch(slow_server: Server, phase: str, stream: bool) -> None:
    server = slow_server
    wait_until(server, **IDLE)
    before = num_disconnects(server, phase)
    if phase == "queued":
        with connection(server, stream=True) as first:
            assert first.recv(16)
            with connection(server, stream=stream):
                wait_until(server, num_requests_running=1.0, num_requests_waiting=1.0)
            took_s = wait_until(server, num_requests_running=1.0, num_requests_waiting=0.0)
    elif phase == "prefill":
        with connection(server, stream=stream, prompt=[7] * 4000):
            wait_until(server, num_requests_running=1.0)
        took_s = wait_until(server, **IDLE)
    else:
        with connection(server, stream=stream) as running:
            wait_until(server, num_requests_running=1.0)
            if stream:
                assert b"data: " in running.recv(1 << 16)
            else:
                poll(lambda: gauges(server)["kv_cache_usage_perc"] > 0.005, 20, "no decoding")
        took_s = wait_until(server, **IDLE)
    poll(lambda: num_disconnects(server, phase) == before + 1, 10, "the disconnect was not counted")
    logger.info("%s, stream %s: gone after %.0f ms (promised: %.0f)", phase, stream, took_s * 1000, PROMISED_S * 1000)


def test_all_choices_of_a_request_leave_together(server: Server) -> None:
    """Under the load of the shared server's own full batch."""
    body = {"prompt": ["a", "b", "c", "d"], "n": 16, "max_tokens": 100, "model": "tiny-base", "stream": True}
    with connection(server, **body) as opened:
        assert opened.recv(16)
    poll(lambda: set(gauges(server).values()) == {0.0}, 10 * PROMISED_S, "sequences of a gone client still run")


def test_the_server_outlives_clients_that_come_and_go(server: Server) -> None:
    for stream in (False, True) * 10:
        with connection(server, model="tiny-base", max_tokens=100, stream=stream):
            pass
    poll(lambda: set(gauges(server).values()) == {0.0}, 10 * PROMISED_S, "sequences of gone clients still run")
    answer = server.client.post("/v1/completions", json={"model": "tiny-base", "prompt": "x", "max_tokens": 3})
    assert answer.status_code == 200
