"""Streams: the order of their events, and that they say what a plain answer says."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.tokenizer import Tokenizer
from service.host.messages import Admitted, Event, Generate, StepEvents, Token, TokenLogprob
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, admitted_then_silent, parse_events, writes

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT: dict[str, Any] = {"model": "tiny-base", "prompt": "Hello"}
TALK: dict[str, Any] = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}


def test_chat_stream_has_role_content_end_and_done(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    events = make_service(generate=writes(tokenizer.encode("ab"))).stream(CHAT, TALK)
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        *({"content": tokenizer.decode([id_])} for id_ in tokenizer.encode("ab")),
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["length"]
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    assert all(event["choices"][0]["logprobs"] is None for event in events)
    for name in ("id", "created", "model", "system_fingerprint"):
        assert len({event[name] for event in events}) == 1
    assert all("usage" not in event for event in events)


def test_completion_stream_has_text_and_end(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    events = make_service(generate=writes(tokenizer.encode("ab"))).stream(COMPLETIONS, PROMPT)
    texts = [tokenizer.decode([id_]) for id_ in tokenizer.encode("ab")]
    assert [event["choices"][0]["text"] for event in events] == [*texts, ""]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert all(event["object"] == "text_completion" for event in events)


@pytest.mark.parametrize(
    ("path", "body"),
    [(COMPLETIONS, PROMPT), (CHAT, TALK), ("/v1/responses", {"model": "tiny-chat", "input": "Hello"})],
)
@pytest.mark.parametrize("with_logprobs", [True, False])
def test_every_reader_sees_one_line_for_an_event(
    make_service: ServiceMaker, tokenizer: Tokenizer, path: str, body: dict[str, Any], with_logprobs: bool
) -> None:
    text = "a\x85b\u2028c\u2029d\x0b\x0c\x1ce\r\nf"
    extra = {"logprobs": 1 if path == COMPLETIONS else True} if with_logprobs and path != "/v1/responses" else {}
    answer = make_service(generate=writes(tokenizer.encode(text))).post(path, {**body, **extra, "stream": True})
    lines = [line for line in answer.text.splitlines() if line and line != "data: [DONE]"]
    assert all(line.startswith(("data: {", "event: ")) for line in lines)
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    if path == "/v1/responses":
        pieces = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    else:
        choices = [choice for event in events for choice in event["choices"]]
        pieces = [choice["text"] if path == COMPLETIONS else choice["delta"].get("content", "") for choice in choices]
    assert "".join(pieces) == text


def test_stream_is_not_cached_nor_buffered(service: Service) -> None:
    headers = service.post(CHAT, TALK | {"stream": True}).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert headers["x-request-id"]


def test_usage_comes_last_and_is_null_before(service: Service) -> None:
    plain = service.post(CHAT, TALK).json()["usage"]
    *chunks, last = service.stream(CHAT, TALK | {"stream_options": {"include_usage": True}})
    assert last["choices"] == []
    assert last["usage"] == plain
    assert all(chunk["usage"] is None for chunk in chunks)


def test_running_usage_is_in_every_chunk(service: Service, tokenizer: Tokenizer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = service.stream(COMPLETIONS, PROMPT | {"stream_options": options})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == last["usage"]["completion_tokens"] == len(tokenizer.encode("Hi!"))


def test_each_choice_has_its_own_chunks(service: Service) -> None:
    events = service.stream(CHAT, TALK | {"n": 3})
    assert all(len(event["choices"]) == 1 for event in events)
    for index in range(3):
        mine = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "Hi!"
        assert [choice["finish_reason"] is None for choice in mine] == [True] * (len(mine) - 1) + [False]


def test_tokens_of_one_step_share_a_write_but_not_a_chunk(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=admitted_then_silent)

    def script(message: Generate) -> Iterable[Event]:
        yield Admitted(message.uid, 0.0, 0)
        tokens = [Token(message.uid, id_) for id_ in tokenizer.encode("abcd")]
        service.frontend.on_message(StepEvents([*tokens, Token(message.uid, 40, finish_reason="length")]))

    service.generate.script = script
    texts = [event["choices"][0]["text"] for event in service.stream(COMPLETIONS, PROMPT)]
    assert len(texts) == len(tokenizer.encode("abcd")) + 2
    assert all(texts[:-1])


def test_entries_come_with_the_text_they_belong_to(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    smile = [next(i for i in range(384) if tokenizer.token_bytes(i) == bytes([b])) for b in "\U0001f642".encode()]
    ids = [*tokenizer.encode("a"), *smile]
    service = make_service(generate=writes(ids, logprobs=[TokenLogprob(-1.0, [])] * 5))
    events = service.stream(COMPLETIONS, PROMPT | {"logprobs": 0})
    shown = [(event["choices"][0]["text"], event["choices"][0]["logprobs"]) for event in events]
    assert [(text, logprobs and len(logprobs["tokens"])) for text, logprobs in shown] == [
        ("a", 1),
        ("\U0001f642", 4),
        ("", None),
    ]


def test_withheld_text_is_not_silence(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=writes(tokenizer.encode("abc")))
    assert ": keep-alive" not in service.post(COMPLETIONS, PROMPT | {"stream": True, "stop": "abcd"}).text


def test_silence_is_filled_with_comments(make_service: ServiceMaker) -> None:
    service = make_service(generate=admitted_then_silent, sse_keepalive_s=0.05)
    stream = Stream(service, PROMPT | {"stream": True})

    async def watch() -> None:
        async with stream:
            while stream.body.count(b": keep-alive\n\n") < 2:
                await stream.next()
            uid = service.generate.requests[0].uid
            service.generate.say(StepEvents([Token(uid, 40, finish_reason="length")]))
            await stream.ended()

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert len(parse_events(stream.body.decode())) == 2


def test_comments_do_not_start_a_stream_that_still_waits_for_its_turn(make_service: ServiceMaker) -> None:
    service = make_service(generate=lambda _: (), sse_keepalive_s=0.01)
    stream = Stream(service, PROMPT | {"stream": True})

    async def watch() -> None:
        async with stream:
            await asyncio.sleep(0.05)
            assert stream.messages == []

    asyncio.run(asyncio.wait_for(watch(), 10))


class Stream:
    """One request at the ASGI border, so that a test sees each write as it is made."""

    def __init__(self, service: Service, body: Any) -> None:
        self._service = service
        self._request = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self.messages: list[Any] = []

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def __aenter__(self) -> "Stream":
        self._written = asyncio.Event()
        self._gone = asyncio.Event()
        scope = {
            "type": "http",
            "method": "POST",
            "path": COMPLETIONS,
            "headers": [],
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
        }
        self._task = asyncio.create_task(self._service.app(scope, self._receive, self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        await self._task

    async def next(self) -> None:
        self._written.clear()
        await self._written.wait()

    async def ended(self) -> None:
        await self._task

    async def _receive(self) -> Any:
        if self._request:
            return self._request.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        self._written.set()


text_and_stops = st.tuples(
    st.text(alphabet="ab \u00e9\u65e5\U0001f642", min_size=1, max_size=12),
    st.lists(st.integers(6, 383), max_size=8),
    st.lists(st.text(alphabet="ab \u00e9\u65e5", min_size=1, max_size=3), max_size=4),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(case=text_and_stops, finish=st.sampled_from(["stop", "length"]), echo=st.booleans(), keep=st.booleans())
def test_stream_joins_to_the_plain_answer(
    make_service: ServiceMaker,
    tokenizer: Tokenizer,
    case: tuple[str, list[int], list[str]],
    finish: str,
    echo: bool,
    keep: bool,
) -> None:
    text, ids, stops = case
    token_ids = [*tokenizer.encode(text), *ids]
    scores = [TokenLogprob(-float(i), [(7, -1.0)]) for i in range(len(token_ids))]
    service = make_service(generate=writes(token_ids, finish=finish, logprobs=scores))
    body = PROMPT | {
        "stop": stops,
        "include_stop_str_in_output": keep,
        "logprobs": 1,
        "return_token_ids": True,
    }
    # The script scores outputs only, so the echoed prompt comes without entries.
    body |= {"echo": echo} if not echo else {"echo": True, "logprobs": None}
    plain = service.post(COMPLETIONS, body).json()
    *chunks, last = service.stream(COMPLETIONS, body | {"stream_options": {"include_usage": True}})
    choices = [chunk["choices"][0] for chunk in chunks]
    whole = plain["choices"][0]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"]
    assert choices[-1]["stop_reason"] == whole["stop_reason"]
    assert [id_ for choice in choices for id_ in choice["token_ids"]] == whole["token_ids"]
    assert last["usage"] == plain["usage"]
    if whole["logprobs"] is not None:
        for name, values in whole["logprobs"].items():
            parts = [choice["logprobs"][name] for choice in choices if choice["logprobs"]]
            assert [value for part in parts for value in part] == values


@pytest.mark.parametrize("path_and_body", [(COMPLETIONS, PROMPT), (CHAT, TALK)], ids=["completions", "chat"])
def test_nothing_comes_after_the_end_of_a_choice(service: Service, path_and_body: tuple[str, Any]) -> None:
    path, body = path_and_body
    events = service.stream(path, body | {"stop": "!"})
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"][0]["stop_reason"] == "!"
    assert sum(event["choices"][0]["finish_reason"] is not None for event in events) == 1
