"""Four kinds of users - completions, chat, streaming, classify - for Locust's command line or page.

Streams are timed token by token: Locust shows TTFT and ITL as requests of their own, and `--results FILE` keeps every
measurement for `report.py`. Which model does what is asked of the server.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from loadtest.events import StreamError, time_stream

OPENINGS = (
    "Once upon a time",
    "The old lighthouse keeper",
    "One morning Mia found a small box under the bed, and",
    "It rained",
    "In the middle of the market stood a man who",
)
QUESTIONS = (
    "What is the plural of mouse?",
    "Write the past tense of go.",
    "Spell the word lantern.",
    "Which is larger, 17 or 71?",
    "Say hello.",
)
MESSAGES = (
    "You won a free cruise! Reply YES to claim your prize now.",
    "Are we still on for lunch tomorrow?",
    "URGENT: your account is locked, confirm your details at the link.",
    "Can you pick up some milk on the way home?",
)

measurements: dict[str, list[float]] = {"ttft_s": [], "itl_s": [], "e2e_s": [], "tokens": []}
"""Every value measured in this run, of requests that generate; `tokens` counts completion tokens per request."""


class ApiUser(FastHttpUser):
    """Asks the server what it serves, and takes the first model with the capability it needs."""

    abstract = True
    wait_time = constant(0)
    connection_timeout = network_timeout = 120.0
    capability = ""
    model = ""

    def on_start(self) -> None:
        cards = self.client.get("/v1/models").json()["data"]
        able = [card["id"] for card in cards if self.capability in card["capabilities"]]
        if not able:
            raise StopUser(f"no model here can do {self.capability}")
        self.model = able[0]

    def ask(self, path: str, body: dict[str, Any]) -> None:
        """Post a request and take its whole answer."""
        started_s = time.perf_counter()
        with self.client.post(path, json={"model": self.model, **body}, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {(response.text or '')[:200]}")
                return
            num_tokens = response.json()["usage"]["completion_tokens"]
        if num_tokens:
            measurements["e2e_s"].append(time.perf_counter() - started_s)
            measurements["tokens"].append(num_tokens)

    def stream(self, path: str, body: dict[str, Any]) -> None:
        """Post a request and time its answer token by token."""
        body = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **body}
        name = f"{path} (stream)"
        started_s = time.perf_counter()
        with self.client.post(path, json=body, name=name, stream=True, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {(response.text or '')[:200]}")
                return
            try:
                times = time_stream(frames(response), started_s)
            except (StreamError, OSError) as error:
                response.failure(str(error))
                return
        measurements["e2e_s"].append(times.e2e_s)
        measurements["tokens"].append(times.num_tokens)
        measurements["itl_s"].extend(times.itl_s)
        for gap_s in times.itl_s:
            self.show("ITL", name, gap_s)
        if times.ttft_s is not None:
            measurements["ttft_s"].append(times.ttft_s)
            self.show("TTFT", name, times.ttft_s)

    def show(self, kind: str, name: str, seconds: float) -> None:
        """Add a line of its own to Locust's table."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=None,
            context={},
        )


class CompletionsUser(ApiUser):
    capability = "completions"

    @task
    def complete(self) -> None:
        self.ask("/v1/completions", {"prompt": random.choice(OPENINGS), **settings()})


class ChatUser(ApiUser):
    capability = "chat"

    @task
    def chat(self) -> None:
        self.ask("/v1/chat/completions", {"messages": conversation(), **settings()})


class StreamingCompletionsUser(ApiUser):
    capability = "completions"

    @task
    def stream_completion(self) -> None:
        self.stream("/v1/completions", {"prompt": random.choice(OPENINGS), **settings()})


class StreamingChatUser(ApiUser):
    capability = "chat"

    @task
    def stream_chat(self) -> None:
        self.stream("/v1/chat/completions", {"messages": conversation(), **settings()})


class ClassifyUser(ApiUser):
    capability = "classify"

    @task
    def classify(self) -> None:
        self.ask("/classify", {"input": random.sample(MESSAGES, k=random.randint(1, 3))})


def conversation() -> list[dict[str, str]]:
    return [{"role": "user", "content": random.choice(QUESTIONS)}]


def settings() -> dict[str, Any]:
    """Mixed lengths and sampling settings, so that no two rows of a batch are alike."""
    return {
        "max_tokens": random.randint(4, 64),
        "temperature": random.choice([0.0, 0.7, 1.0]),
        "seed": random.randrange(2**31),
    }


def frames(response: Any) -> Iterator[bytes]:
    """Yield events as they arrive."""
    while frame := response.stream.readline(b"\n\n"):
        yield bytes(frame)


@events.init_command_line_parser.add_listener
def add_results_flag(parser: LocustArgumentParser) -> None:
    parser.add_argument("--results", metavar="FILE", default="", help="write every measurement to FILE as JSON")


@events.quitting.add_listener
def write_results(environment: Environment, **_: Any) -> None:
    if environment.parsed_options is None or not environment.parsed_options.results:
        return
    requests = [e for e in environment.stats.entries.values() if e.method not in ("TTFT", "ITL")]
    summary = {
        "num_users": environment.parsed_options.num_users,
        "duration_s": environment.stats.last_request_timestamp - environment.stats.start_time,
        "num_requests": sum(entry.num_requests for entry in requests),
        "num_failures": sum(entry.num_failures for entry in requests),
        "failures": {f"{e.method} {e.name}: {e.error}": e.occurrences for e in environment.stats.errors.values()},
        "measurements": measurements,
    }
    Path(environment.parsed_options.results).write_text(json.dumps(summary))
