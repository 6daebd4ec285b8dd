"""Long answers, read in a thread of their own while the test does something to the server."""

import json
import threading
from typing import Any

import httpx

from tests.program import poll


class Stream:
    """A streamed completion under way. `events` grows as data arrives; `[DONE]` is the string "[DONE]"."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.events: list[Any] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(f"{url}/v1/completions", {**body, "stream": True}))
        self._thread.start()
        poll(lambda: bool(self.events) or not self._thread.is_alive(), 30, "the stream did not begin")

    def _read(self, url: str, body: dict[str, Any]) -> None:
        try:
            with httpx.stream("POST", url, json=body, timeout=60) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        data = line.removeprefix("data: ")
                        self.events.append(data if data == "[DONE]" else json.loads(data))
        except httpx.HTTPError as error:
            self.error = error

    def join(self, timeout_s: float = 60.0) -> list[Any]:
        """Wait for the end and return every event."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the stream hangs"
        assert self.error is None
        return self.events


def completion(num_sequences: int, model: str = "tiny-base") -> dict[str, Any]:
    """A request for that many sequences of 100 tokens each; a batch of one makes it as long as one likes."""
    prompts = [f"Boat number {index}" for index in range(max(1, num_sequences // 16))]
    return {
        "model": model,
        "prompt": prompts,
        "n": min(num_sequences, 16),
        "max_tokens": 100,
        "ignore_eos": True,
        "seed": 1,
    }
