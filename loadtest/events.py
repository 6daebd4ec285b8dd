"""Server-sent events as a client meets them: bytes in, times of first and later tokens out.

It knows the shape of OpenAI's stream chunks and nothing of HTTP.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


class StreamError(Exception):
    """The stream held an error event, or ended before `[DONE]`."""


@dataclass(slots=True)
class StreamTimes:
    """What one stream felt like, in seconds from the moment its request was sent."""

    ttft_s: float | None = None
    """Until the first text."""
    itl_s: list[float] = field(default_factory=list)
    """Between one piece of text and the next."""
    e2e_s: float = 0.0
    num_tokens: int = 0
    """Completion tokens, as the usage chunk counts them."""


def time_stream(
    frames: Iterator[bytes], started_s: float, clock: Callable[[], float] = time.perf_counter
) -> StreamTimes:
    """Read a stream to its end.

    Args:
        frames: Events, one at a time, as they arrive; each ends with a blank line.
        started_s: When the request was sent, on `clock`.

    Raises:
        StreamError: the server reported an error, or the stream broke off.
    """
    times = StreamTimes()
    last_s = started_s
    for frame in frames:
        data = _data(frame)
        if data is None:
            continue
        now_s = clock()
        if data == "[DONE]":
            times.e2e_s = now_s - started_s
            return times
        chunk = json.loads(data)
        if "error" in chunk:
            raise StreamError(chunk["error"]["message"])
        if chunk.get("usage"):
            times.num_tokens = chunk["usage"]["completion_tokens"]
        if _text(chunk):
            if times.ttft_s is None:
                times.ttft_s = now_s - started_s
            else:
                times.itl_s.append(now_s - last_s)
            last_s = now_s
    raise StreamError("the stream ended before [DONE]")


def _data(frame: bytes) -> str | None:
    lines = [line for line in frame.decode().splitlines() if line.startswith("data:")]
    return lines[0].removeprefix("data:").strip() if lines else None


def _text(chunk: dict[str, Any]) -> str:
    if not chunk["choices"]:
        return ""
    choice = chunk["choices"][0]
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""
