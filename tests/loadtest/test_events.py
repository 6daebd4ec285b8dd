"""How a client times a stream, on streams written by hand and a clock that ticks on demand."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from loadtest.events import StreamError, time_stream
from tests.clock import Clock


def frame(body: Any) -> bytes:
    return f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}], "usage": None, **more}


def arriving(clock: Clock, timed: list[tuple[float, bytes]]) -> Iterator[bytes]:
    for at_s, data in timed:
        clock.now_s = at_s
        yield data


def test_first_and_later_tokens_are_timed_from_text_to_text() -> None:
    clock = Clock(10.0)
    timed = [
        (10.1, frame({"choices": [{"delta": {"role": "assistant", "content": ""}}]})),
        (10.5, frame(chat("He"))),
        (10.6, b": keep-alive\n\n"),
        (10.7, frame(chat("llo"))),
        (11.0, frame({"choices": [{"text": "!"}]})),
        (11.1, frame({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        (11.1, frame({"choices": [], "usage": {"completion_tokens": 3}})),
        (11.2, frame("[DONE]")),
    ]
    times = time_stream(arriving(clock, timed), 10.0, clock)
    assert times.ttft_s == pytest.approx(0.5)
    assert times.itl_s == pytest.approx([0.2, 0.3])
    assert times.e2e_s == pytest.approx(1.2)
    assert times.num_tokens == 3


def test_an_answer_without_text_has_no_first_token() -> None:
    clock = Clock(10.0)
    times = time_stream(arriving(clock, [(11.0, frame("[DONE]"))]), 10.0, clock)
    assert times.ttft_s is None
    assert times.e2e_s == 1.0


def test_an_error_event_fails_the_request() -> None:
    with pytest.raises(StreamError, match="no luck"):
        time_stream(iter([frame(chat("a")), frame({"error": {"message": "no luck"}})]), 0.0)


def test_a_stream_that_breaks_off_fails_the_request() -> None:
    with pytest.raises(StreamError, match="before"):
        time_stream(iter([frame(chat("a"))]), 0.0)
