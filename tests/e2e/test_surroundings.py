"""What surrounds answers on a real socket: headers, second paths, other origins, cards, streams, silence, leaving."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from model.tokenizer import Tokenizer
from tests.e2e.conftest import Server, start_server
from tests.e2e.test_disconnect import connection
from tests.program import poll
from tests.service.web.test_routes import METRICS

pytestmark = pytest.mark.slow

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BASE: dict[str, Any] = {"model": "tiny-base", "prompt": "The quick", "max_tokens": 4, "temperature": 0}
HELLO = {"role": "user", "content": "Hello"}
TALK: dict[str, Any] = {"model": "tiny-chat", "messages": [HELLO], "max_tokens": 4, "temperature": 0}
ORIGIN, STRANGER = "https://page.example", "https://evil.example"


@pytest.fixture(scope="module")
def open_server(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with all that changes what surrounds an answer."""
    log = tmp_path_factory.mktemp("open") / "server.log"
    names = {"aliases": "gpt-4o=tiny-chat", "default_model": "tiny-base"}
    rest = {"cors_origins": ORIGIN, "tools_auto": "ignore", "requests_per_minute": 100_000}
    with start_server(tiny_checkpoints, log, **names, **rest) as running:
        yield running


@pytest.fixture(scope="module")
def slow_server(long_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Eight tokens in a step of a long prompt, and a comment after a tenth of a second without any."""
    log = tmp_path_factory.mktemp("slow") / "server.log"
    settings = {"max_num_seqs": 1, "max_num_batched_tokens": 8, "sse_keepalive_s": 0.1}
    with start_server(long_checkpoint.parent, log, long_checkpoint.name, **settings) as running:
        yield running


def events_of(text: str) -> list[Any]:
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


ANSWERS: list[tuple[str, str, Any, int]] = [
    ("GET", "/health", None, 200),
    ("GET", "/v1/models", None, 200),
    ("GET", "/nope", None, 404),
    ("GET", COMPLETIONS, None, 405),
    ("POST", COMPLETIONS, BASE | {"n": 0}, 400),
    ("POST", COMPLETIONS, BASE, 200),
    ("POST", COMPLETIONS, BASE | {"stream": True}, 200),
    ("POST", "/classify", {"input": "x"}, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
def test_every_answer_has_the_common_headers(
    open_server: Server, method: str, path: str, body: Any, status: int
) -> None:
    for sent, kept in (("abc.DEF:1-2_3", True), ("two words", False), ("x" * 129, False), (None, False)):
        headers = {} if sent is None else {"x-request-id": sent}
        answer = open_server.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status
        request_id = answer.headers["x-request-id"]
        assert request_id == sent if kept else re.fullmatch("req_[0-9a-f]{32}", request_id)
        assert answer.headers["openai-version"] == "2020-10-01"
        assert answer.headers["openai-processing-ms"].isdigit()


def test_answers_that_generate_tell_times_limits_and_what_was_ignored(open_server: Server) -> None:
    plain = open_server.client.post(COMPLETIONS, json=BASE | {"colour": 1, "taste": 2})
    stream = open_server.client.post(COMPLETIONS, json=BASE | {"colour": 1, "taste": 2, "stream": True})
    for answer in (plain, stream):
        assert answer.headers["x-ignored-params"] == "colour, taste"
        assert answer.headers["x-ratelimit-limit-requests"] == "100000"
        assert "x-ratelimit-limit-tokens" not in answer.headers
    assert re.fullmatch(r"queue;dur=[\d.]+, prefill;dur=[\d.]+, decode;dur=[\d.]+", plain.headers["server-timing"])
    expected = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    assert expected.items() <= dict(stream.headers).items()
    assert "x-ignored-params" not in open_server.client.post(COMPLETIONS, json=BASE).headers


def test_tools_may_be_ignored(open_server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for choice in ({}, {"tool_choice": "auto"}):
        answer = open_server.client.post(CHAT, json=TALK | {"tools": tools} | choice)
        assert (answer.status_code, answer.headers["x-ignored-params"]) == (200, "tools")


@pytest.mark.parametrize(
    ("path", "alias", "body"),
    [
        (CHAT, "/v1/chat", TALK),
        (CHAT, "/v1/chat/", TALK),
        (COMPLETIONS, "/v1/completions/", BASE),
        ("/classify", "/v1/classify", {"input": "x"}),
        ("/health", "/v1/health", None),
        ("/v1/models", "/v1/models/", None),
        ("/metrics", "/metrics/", None),
    ],
)
def test_second_paths_and_slashes_lead_to_the_same_and_never_redirect(
    open_server: Server, path: str, alias: str, body: Any
) -> None:
    method = "GET" if body is None else "POST"
    answers = [open_server.client.request(method, spelled, json=body) for spelled in (path, alias)]
    assert [answer.status_code for answer in answers] == [200, 200]
    if path != "/metrics":
        first, second = (without_names(answer.json()) for answer in answers)
        assert first == second
    if body is not None:
        errors = [open_server.client.post(spelled, json=body | {"model": 7}).json() for spelled in (path, alias)]
        assert errors[0] == errors[1]


def without_names(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name not in ("id", "created", "usage")}


def test_pages_of_listed_origins_may_call(open_server: Server) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-a"}
    preflight = open_server.client.options(COMPLETIONS, headers=asks | {"origin": ORIGIN})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = open_server.client.options(COMPLETIONS, headers=asks | {"origin": STRANGER})
    assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_supported")
    assert "access-control-allow-origin" not in refused.headers
    for body in (BASE, BASE | {"n": 0}, BASE | {"stream": True}):
        answer = open_server.client.post(COMPLETIONS, json=body, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"x-request-id", "retry-after", "x-ratelimit-limit-requests", "x-ratelimit-reset-tokens"} <= exposed


def test_cards_aliases_and_the_default_model(open_server: Server) -> None:
    listed, again = (open_server.client.get("/v1/models").json() for _ in range(2))
    assert listed == again
    assert listed["object"] == "list"
    cards = {card["id"]: card for card in listed["data"]}
    assert sorted(cards) == ["gpt-4o", "tiny-base", "tiny-chat", "tiny-spam"]
    assert cards["gpt-4o"] == cards["tiny-chat"] | {"id": "gpt-4o"}
    assert cards["tiny-chat"]["root"] == "tiny-chat"
    assert cards["tiny-spam"]["labels"] == ["ham", "spam"]
    assert (cards["tiny-base"]["capabilities"], cards["tiny-base"]["max_model_len"]) == (
        ["completions", "embeddings"],
        128,
    )
    for name, card in cards.items():
        assert open_server.client.get(f"/v1/models/{name}").json() == card
    assert open_server.client.post(CHAT, json=TALK | {"model": "gpt-4o"}).json()["model"] == "tiny-chat"
    assert open_server.client.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 1}).json()["model"] == "tiny-base"


def test_the_tokenizer_is_described_and_control_tokens_are_single(open_server: Server, tokenizer: Tokenizer) -> None:
    info = open_server.client.get("/tokenizer_info", params={"model": "tiny-chat"}).json()
    assert (info["bos_token"], info["eos_token"], info["vocab_size"]) == (None, "<|endoftext|>", 384)
    assert "add_generation_prompt" in info["chat_template"]
    assert open_server.client.get("/tokenizer_info").json()["chat_template"] is None
    counted = open_server.client.post("/tokenize", json={"prompt": "<|endoftext|>", "return_token_strs": True}).json()
    assert counted == {"count": 1, "max_model_len": 128, "tokens": [0], "token_strs": ["<|endoftext|>"]}
    assert (
        open_server.client.post("/detokenize", json={"tokens": tokenizer.encode("Hello")}).json()["content"] == "Hello"
    )


RARE = ("vllm:admission_rejections", "groundup_client_disconnects")
"""Metrics whose labels are not known before something happens, and nothing of that kind does here."""


def test_metrics_speak_two_formats_and_all_are_there(open_server: Server) -> None:
    for path, body in [
        (COMPLETIONS, BASE | {"stream": True, "colour": 1}),
        (COMPLETIONS, BASE | {"regex": "a"}),
        (COMPLETIONS, BASE | {"n": 0}),
        ("/v1/embeddings", {"model": "tiny-base", "input": "x"}),
        ("/classify", {"input": "x"}),
    ]:
        open_server.client.post(path, json=body)
    plain = open_server.client.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    accepted = {"accept": "application/openmetrics-text; version=1.0.0"}
    modern = open_server.client.get("/metrics", headers=accepted)
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    shown = set(re.findall(r"^# HELP (\S+?)(?:_total)? ", plain.text, re.MULTILINE))
    assert {name.removesuffix("_total") for name in METRICS} - shown <= set(RARE)


def num_prompt(server: Server, messages: list[Any]) -> int:
    answer = server.client.post(CHAT, json=TALK | {"messages": messages, "max_tokens": 1})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


def test_messages_of_all_roles_and_kinds_of_parts(open_server: Server) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    roles = [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "D", "name": "dev"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "y", "tool_call_id": "call_1"},
        {"role": "function", "content": "z", "name": "f"},
    ]
    assert num_prompt(open_server, roles) > 2 * len(roles)
    whole = [{"role": "assistant", "content": "xyz"}, HELLO]
    parts = [{"type": kind, "text": text} for kind, text in (("text", "x"), ("input_text", "y"), ("output_text", "z"))]
    refusal = {"type": "refusal", "refusal": "!"}
    assert num_prompt(open_server, [{"role": "assistant", "content": parts}, HELLO]) == num_prompt(open_server, whole)
    assert num_prompt(open_server, [{"role": "assistant", "content": [*parts, refusal]}, HELLO]) == num_prompt(
        open_server, [{"role": "assistant", "content": "xyz!"}, HELLO]
    )
    control = [{"role": "user", "content": "<|end|>"}]  # written by a user: seven letters, and no control token
    assert num_prompt(open_server, control) > num_prompt(open_server, [{"role": "user", "content": "x"}]) + 3


def test_whole_numbers_may_have_a_point(open_server: Server) -> None:
    answer = open_server.client.post(COMPLETIONS, json=BASE | {"max_tokens": 2.0, "n": 1.0}).json()
    assert answer["usage"]["completion_tokens"] <= 2


def test_a_chat_stream_is_role_content_end_and_usage(open_server: Server) -> None:
    body = TALK | {"n": 2, "stream": True, "ignore_eos": True, "temperature": 1, "seed": 1}
    usage = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    *chunks, last = events_of(open_server.client.post(CHAT, json=body | usage).text)
    assert last["choices"] == []
    counts = [chunk["usage"]["completion_tokens"] for chunk in (*chunks, last)]
    assert counts == sorted(counts)
    assert counts[-1] == 8
    same = ("id", "created", "model", "system_fingerprint", "object")
    assert all(before[name] == after[name] for before, after in pairwise(chunks) for name in same)
    assert chunks[0]["object"] == "chat.completion.chunk"
    for index in range(2):
        first, *middle, end = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert [list(choice["delta"]) for choice in middle] == [["content"]] * len(middle)
        assert (end["delta"], end["finish_reason"]) == ({}, "length")


def test_a_completion_stream_begins_with_its_echo(open_server: Server) -> None:
    body = BASE | {"stream": True, "echo": True, "ignore_eos": True}
    chunks = events_of(open_server.client.post(COMPLETIONS, json=body).text)
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert (texts[0], texts[-1]) == ("The quick", "")
    assert all(chunk["object"] == "text_completion" for chunk in chunks)
    plain = open_server.client.post(COMPLETIONS, json=body | {"stream": False}).json()
    assert "".join(texts) == plain["choices"][0]["text"]


def test_silence_is_filled_with_comments(slow_server: Server) -> None:
    body = {"model": "long", "prompt": [7] * 4000, "max_tokens": 2, "ignore_eos": True, "stream": True}
    text = slow_server.client.post(COMPLETIONS, json=body).text
    assert text.startswith(": keep-alive\n\n")
    assert [event for event in text.split("\n\n") if event.startswith("data: [DONE]")]


def test_a_client_that_leaves_is_told_of_in_log_and_metrics(slow_server: Server) -> None:
    def aborted() -> float:
        page = slow_server.client.get("/metrics").text
        found = re.search(r'^vllm:request_success_total\{.*finished_reason="abort".*\} (\S+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = aborted()
    with connection(slow_server, stream=True) as opened:
        assert b"200 OK" in opened.recv(1 << 16)
    slow_server.program.wait_for(r"POST /v1/completions 499 ", timeout_s=30)
    poll(lambda: aborted() == before + 1, 30, "not counted")
