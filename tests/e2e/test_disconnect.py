"""Clients that close their connection are out of the batch: in the queue, in prefill, in decode, under load."""

import json
import logging
import os
import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

NUM_LEAVERS = int(os.environ.get("GROUNDUP_DISCONNECTS", "48"))
"""Clients that leave under load. By hand: GROUNDUP_DISCONNECTS=1000."""

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
def connection(server: Server, *, receive_buffer: int | None = None, **changes: Any) -> Iterator[socket.socket]:
    """A request under way on a connection of its own; leaving the block closes it."""
    body = {"model": "long", "prompt": [7], "max_tokens": 4000, "ignore_eos": True, **changes}
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as opened:
        if receive_buffer is not None:  # the kernel reads no further ahead than that
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.connect((host, int(port)))
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
                answer = b""
                while b"data: " not in answer:  # the headers may come alone
                    answer += (part := running.recv(1 << 16))
                    assert part
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


def leave(server: Server, number: int) -> None:
    """Send a request and vanish some time later, politely or not."""
    rng = random.Random(number)
    prompt = [rng.randrange(40, 300) for _ in range(rng.choice([1, 1500]))]  # of no cached beginning
    with connection(server, stream=rng.random() < 0.5, prompt=prompt) as opened:
        time.sleep(rng.uniform(0.005, 0.2))
        if rng.random() < 0.5:  # closing then resets the connection
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def leave_together(server: Server, count: int) -> None:
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda number: leave(server, number), range(count)))


def belongings(server: Server) -> dict[str, int]:
    """Open files of the process that answers HTTP and of the one that computes."""
    return {"http": server.program.http.num_fds(), "worker": server.program.workers[0].num_fds()}


def test_clients_that_leave_under_load_leave_nothing_behind(slow_server: Server) -> None:
    server, phases = slow_server, ("queued", "prefill", "decode")
    leave_together(server, 8)  # whatever is made once is made now
    wait_until(server, **IDLE)
    before, counts = belongings(server), [num_disconnects(server, phase) for phase in phases]
    sizes = [process.memory_info().rss for process in (server.program.http, server.program.workers[0])]
    leave_together(server, NUM_LEAVERS)
    took_s = wait_until(server, **IDLE)
    poll(lambda: belongings(server) == before, 10, "open files stay behind")
    met = [num_disconnects(server, phase) - count for phase, count in zip(phases, counts, strict=True)]
    assert all(met), f"not every phase was left in: {met}"
    now = [process.memory_info().rss for process in (server.program.http, server.program.workers[0])]
    grown_mib = [(after - size) / 2**20 for size, after in zip(sizes, now, strict=True)]
    assert max(grown_mib) < 32
    logger.info(
        "%d left (%s: %s), idle after %.0f ms; MiB grown: %s", NUM_LEAVERS, phases, met, 1e3 * took_s, grown_mib
    )
    answer = server.client.post("/v1/completions", json={"model": "long", "prompt": "x", "max_tokens": 2})
    assert answer.status_code == 200


def test_a_client_that_does_not_read_stalls_nobody_and_loses_nothing(server: Server) -> None:
    body = {"prompt": ["x"] * 8, "n": 16, "max_tokens": 100, "model": "tiny-base", "stream": True, "logprobs": 5}
    with connection(server, receive_buffer=4096, **body) as deaf:
        poll(lambda: gauges(server)["num_requests_running"] > 0, 30, "not begun")
        short = {"model": "tiny-base", "prompt": "x", "max_tokens": 5}
        assert server.client.post("/v1/completions", json=short).status_code == 200
        poll(lambda: set(gauges(server).values()) == {0.0}, 60, "the batch waits for a client that does not read")
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += deaf.recv(1 << 16)
    assert answer.count(b'"finish_reason":"length"') == 128
    assert b"data: [DONE]" in answer
