"""Every request ends in a result, a typed error or its client's own leaving, whatever happens to workers and models."""

import json
import logging
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, start_server
from tests.e2e.test_disconnect import gauges
from tests.program import poll

pytestmark = pytest.mark.slow

logger = logging.getLogger(__name__)

DURATION_S = float(os.environ.get("GROUNDUP_CHAOS_S", "10"))
"""How long it goes on. By hand: GROUNDUP_CHAOS_S=300."""

NUM_CLIENTS = 12
KILL_EVERY_S = 3.0
HELLO = [{"role": "user", "content": "Hello"}]
LONG: dict[str, Any] = {"model": "tiny-base", "prompt": "A boat", "max_tokens": 40, "ignore_eos": True}
SHORT: dict[str, Any] = {"model": "tiny-base", "prompt": "A boat", "max_tokens": 20}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", LONG),
    ("/v1/completions", LONG | {"prompt": ["a", "b"], "n": 8}),
    ("/v1/completions", LONG | {"stream": True, "n": 4}),
    ("/v1/completions", SHORT | {"response_format": {"type": "json_object"}}),
    ("/v1/chat/completions", {"model": "tiny-chat", "messages": HELLO, "max_tokens": 40}),
    ("/v1/chat/completions", {"model": "tiny-chat", "messages": HELLO, "max_tokens": 80, "stream": True}),
    ("/v1/embeddings", {"model": "tiny-chat", "input": ["Hello", "you"]}),
    ("/classify", {"model": "tiny-spam", "input": ["Hello", "you"]}),
    ("/tokenize", {"model": "tiny-base", "prompt": "Hello"}),
    ("/v1/completions", {"model": "nope", "prompt": "x"}),
]


def outcome(server: Server, client: httpx.Client, rng: random.Random) -> str:
    """Send one request, see it to its end or leave it, and say how it ended. What is no such end raises."""
    path, body = rng.choice(REQUESTS)
    patience = rng.choice([None, None, 0, 1, 3])  # pieces of the answer that are waited for
    with client.stream("POST", server.url + path, json=body) as response:
        parts = []
        for part in response.iter_bytes():
            parts.append(part)
            if patience is not None and body.get("stream") and len(parts) > patience:
                return "left"
    content = b"".join(parts)
    if response.status_code == 200 and body.get("stream"):
        events = [event.removeprefix("data: ") for event in content.decode().split("\n\n") if event.startswith("data:")]
        assert events[-1] == "[DONE]", content
        errors = [json.loads(event)["error"] for event in events[:-1] if event.startswith('{"error"')]
        if not errors:
            assert content.count(b'"finish_reason":"') >= body.get("n", 1), content
    else:
        answer = json.loads(content)
        errors = [answer["error"]] if response.status_code != 200 else []
    for error in errors:
        assert set(error) == {"message", "type", "param", "code"}, error
        return str(error["code"])
    return "result"


def hurry(server: Server) -> str:
    """Send a request and vanish before anything comes back."""
    try:
        httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=0.05)
    except httpx.TimeoutException:
        return "left"
    return "result"


def misfortune(server: Server, end_s: float, admin: dict[str, str], folder: Path) -> Counter[str]:
    """Replace models and kill workers, those that are all at work, until the end."""
    rng, done, next_kill_s = random.Random(0), Counter[str](), time.monotonic() + 1
    while time.monotonic() < end_s:
        is_ready = server.client.get("/readyz").status_code == 200
        if is_ready and time.monotonic() > next_kill_s:
            rng.choice(server.program.workers).kill()
            done["killed"] += 1
            next_kill_s = time.monotonic() + KILL_EVERY_S
        path = str(folder / rng.choice(["tiny-base", "tiny-chat", "tiny-spam"]))
        answer = httpx.post(f"{server.url}/admin/models", json={"path": path}, headers=admin, timeout=200)
        done[f"replaced: {answer.status_code}"] += 1
        assert answer.status_code == 200 or answer.json()["error"]["code"], answer.text
        time.sleep(0.3)
    return done


@pytest.mark.timeout(int(300 + DURATION_S))
def test_every_request_ends_whatever_happens(tiny_checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("root")
    settings = {"admin_key_file": tmp_path / "admin", "max_restarts": 1000, "max_num_seqs": 8}
    with start_server(tiny_checkpoints, tmp_path / "server.log", **settings) as server:
        end_s = time.monotonic() + DURATION_S

        def live(number: int) -> Counter[str]:
            rng, ends = random.Random(number), Counter[str]()
            with httpx.Client(timeout=200) as client:
                while time.monotonic() < end_s:
                    end = hurry(server) if rng.random() < 0.1 else outcome(server, client, rng)
                    ends[end] += 1
                    time.sleep(0.1 if end == "engine_unavailable" else 0)
            return ends

        with ThreadPoolExecutor(NUM_CLIENTS + 1) as threads:
            chaos = threads.submit(misfortune, server, end_s, {"Authorization": "Bearer root"}, tiny_checkpoints)
            ends = sum(threads.map(live, range(NUM_CLIENTS)), Counter[str]())
        logger.info("requests ended in %s; meanwhile %s", dict(ends), dict(chaos.result()))

        assert ends["result"] > 0
        assert ends["left"] > 0
        assert chaos.result()["killed"] > 0
        assert set(ends) <= {
            "result",
            "left",
            "model_not_found",
            "internal_error",
            "engine_unavailable",
            "model_loading",
        }
        poll(lambda: server.client.get("/readyz").status_code == 200, 120, "not ready again")
        poll(lambda: set(gauges(server).values()) == {0.0}, 60, "something is still counted")
        with httpx.Client(timeout=200) as client:
            for path, body in REQUESTS[:-1]:
                assert client.post(server.url + path, json=body).status_code == 200
