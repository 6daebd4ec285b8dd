"""Every field of every request body on a real server: a value it takes, and what that changes. A table per endpoint,
in the order of the API; the values that are refused are in tests/service/web/test_error_catalogue.py.
"""

import base64
import json
import re
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from service.web.protocol.base import RequestBody
from service.web.protocol.chat import ChatRequest
from service.web.protocol.classify import ClassifyRequest, PredictRequest
from service.web.protocol.completions import CompletionRequest
from service.web.protocol.embeddings import EmbeddingRequest
from service.web.protocol.responses import ResponsesRequest
from service.web.protocol.tokens import DetokenizeRequest, TokenizeRequest
from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

Seen = Callable[[Any, Any], object]
"""Given the answer with the field and the answer without, whether the field did what it should."""

Changes = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]
"""What is sent beside the endpoint's own body; it may depend on the answer to that."""

Case = tuple[Changes, Seen]


def same(answer: Any, plain: Any) -> bool:
    """Of fields that say what is so anyway; those that have an effect show it."""
    return text_of(answer) == text_of(plain)


def differs(answer: Any, plain: Any) -> bool:
    return not same(answer, plain)


def text_of(answer: Any, index: int = 0) -> str:
    choice = answer["choices"][index]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def generated(answer: Any) -> int:
    return int(answer["usage"]["completion_tokens"])


def ids_of(answer: Any) -> list[int]:
    ids: list[int] = answer["choices"][0]["token_ids"]
    return ids


def stopped_by(stop: object) -> Seen:
    def seen(answer: Any, plain: Any) -> bool:
        choice = answer["choices"][0]
        return (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)

    return seen


def second_half(plain: Any) -> str:
    return text_of(plain)[len(text_of(plain)) // 2 :]


def ends(reason: str) -> Seen:
    return lambda answer, plain: answer["choices"][0]["finish_reason"] == reason


TEXT_END, USER, C, D = "0", "3", "40", "41"
"""Ids of the tiny vocabulary: `<|endoftext|>`, `<|user|>` and two letters."""
AT_ONCE = {TEXT_END: 100}

SAMPLING: dict[str, Case] = {
    "temperature": ({"temperature": 2, "seed": 1}, differs),
    "top_p": ({"top_p": 0, "temperature": 1}, same),
    "n": ({"n": 3}, lambda answer, plain: len(answer["choices"]) == 3),
    "best_of": ({"n": 2, "best_of": 3, "temperature": 1}, lambda a, p: generated(a) == 3 * generated(p)),
    "stream": ({"stream": False}, same),
    "stream_options": ({"stream_options": None}, same),
    "stop": (
        lambda plain: {"stop": [second_half(plain)]},
        lambda a, p: text_of(a) == text_of(p).partition(second_half(p))[0],
    ),
    "presence_penalty": (
        {"presence_penalty": 2, "logit_bias": {C: 100, D: 98.5}, "return_token_ids": True},
        lambda a, p: ids_of(a)[:2] == [40, 41],
    ),
    "frequency_penalty": ({"frequency_penalty": 2}, differs),
    "logit_bias": ({"logit_bias": {"40": 100}, "return_token_ids": True}, lambda a, p: set(ids_of(a)) == {40}),
    "seed": ({"seed": 5, "temperature": 1, "n": 2}, lambda a, p: text_of(a, 0) != text_of(a, 1)),
    "response_format": (
        {"response_format": {"type": "json_object"}, "ignore_eos": False, "max_tokens": 100},
        lambda a, p: a["choices"][0]["finish_reason"] == "length" or isinstance(json.loads(text_of(a)), dict),
    ),
    "top_k": ({"top_k": 1, "temperature": 1}, same),
    "min_p": ({"min_p": 1, "temperature": 1}, same),
    "repetition_penalty": ({"repetition_penalty": 9}, differs),
    "min_tokens": ({"min_tokens": 5, "ignore_eos": False, "logit_bias": AT_ONCE}, lambda a, p: generated(a) == 6),
    "stop_token_ids": ({"stop_token_ids": [40], "logit_bias": {C: 100}}, stopped_by(40)),
    "ignore_eos": ({"ignore_eos": True, "logit_bias": AT_ONCE}, lambda a, p: generated(a) == 12),
    "include_stop_str_in_output": (
        lambda plain: {"stop": [second_half(plain)], "include_stop_str_in_output": True},
        lambda a, p: text_of(a) == "".join(text_of(p).partition(second_half(p))[:2]),
    ),
    "skip_special_tokens": (
        {"skip_special_tokens": False, "logit_bias": {USER: 100}},
        lambda a, p: text_of(a) == "<|user|>" * 12,
    ),
    "bad_words": (
        {"bad_words": ["C"], "logit_bias": {C: 100, D: 90}, "return_token_ids": True},
        lambda a, p: set(ids_of(a)) == {41},
    ),
    "allowed_token_ids": (
        {"allowed_token_ids": [40, 41], "return_token_ids": True, "temperature": 1},
        lambda a, p: set(ids_of(a)) <= {40, 41},
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": -1}, same),
    "truncation_side": ({"truncation_side": "right"}, same),
    "return_token_ids": ({"return_token_ids": True}, lambda a, p: len(ids_of(a)) == 12),
    "add_special_tokens": ({"add_special_tokens": False}, same),
    "cache_salt": ({"cache_salt": "mine"}, same),
    "request_id": ({"request_id": "mine"}, lambda a, p: a["id"].endswith("-mine")),
    "structured_outputs": (
        {"structured_outputs": {"choice": ["yes", "no"]}, "ignore_eos": False},
        lambda a, p: text_of(a) in ("yes", "no"),
    ),
    "guided_json": ({"guided_json": {"enum": [17]}, "ignore_eos": False}, lambda a, p: json.loads(text_of(a)) == 17),
    "guided_regex": (
        {"guided_regex": "[ab]{3}", "ignore_eos": False},
        lambda a, p: re.fullmatch("[ab]{3}", text_of(a)),
    ),
    "guided_choice": ({"guided_choice": ["yes", "no"], "ignore_eos": False}, lambda a, p: text_of(a) in ("yes", "no")),
    "regex": ({"regex": "a{2}", "ignore_eos": False}, lambda a, p: text_of(a) == "aa"),
    "json_schema": ({"json_schema": {"const": 7}, "ignore_eos": False}, lambda a, p: json.loads(text_of(a)) == 7),
}

COMPLETIONS: dict[str, Case] = {
    "model": ({"model": "tiny-base"}, same),
    "prompt": ({"prompt": [[1, 2], [3]]}, lambda a, p: a["usage"]["prompt_tokens"] == 3),
    "max_tokens": ({"max_tokens": 0}, lambda a, p: generated(a) == 0 and ends("length")(a, p)),
    "logprobs": ({"logprobs": 2}, lambda a, p: len(a["choices"][0]["logprobs"]["tokens"]) == 12),
    "echo": ({"echo": True}, lambda a, p: text_of(a) == "The quick" + text_of(p)),
    "suffix": ({"suffix": ""}, same),
    "parse_special": ({"prompt": "<|end|>", "parse_special": False}, lambda a, p: a["usage"]["prompt_tokens"] > 1),
    **SAMPLING,
    "prompt_logprobs": (
        {"prompt_logprobs": 1},
        lambda a, p: [entry is None for entry in a["choices"][0]["prompt_logprobs"]].count(True) == 1,
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 2}, lambda a, p: a["usage"]["prompt_tokens"] == 2),
    "truncation_side": (
        {"truncate_prompt_tokens": 1, "truncation_side": "right", "echo": True},
        lambda a, p: text_of(a)[0] == "T",
    ),
    "return_tokens_as_token_ids": (
        {"return_tokens_as_token_ids": True, "logprobs": 0},
        lambda a, p: all(token.startswith("token_id:") for token in a["choices"][0]["logprobs"]["tokens"]),
    ),
}

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALLED = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}, "ignore_eos": False}

CHAT: dict[str, Case] = {
    "model": ({"model": "tiny-chat"}, same),
    "messages": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}]}, same),
    "max_completion_tokens": ({"max_completion_tokens": 3}, lambda a, p: generated(a) == 3),
    "max_tokens": ({"max_tokens": 4}, lambda a, p: generated(a) == 4),
    "logprobs": ({"logprobs": True}, lambda a, p: a["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []),
    "top_logprobs": (
        {"logprobs": True, "top_logprobs": 20},
        lambda a, p: len(a["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 20,
    ),
    "tools": (
        CALLED | {"max_tokens": 60},
        lambda a, p: a["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f",
    ),
    "tool_choice": ({"tools": [TOOL], "tool_choice": "none"}, same),
    "parallel_tool_calls": (
        CALLED | {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 100},
        lambda a, p: len(a["choices"][0]["message"]["tool_calls"]) == 1,
    ),
    "chat_template_kwargs": ({"chat_template_kwargs": {"mood": "good"}}, same),
    "add_generation_prompt": (
        {"add_generation_prompt": False},
        lambda a, p: a["usage"]["prompt_tokens"] == p["usage"]["prompt_tokens"] - 1,
    ),
    "continue_final_message": (
        {"continue_final_message": True},
        lambda a, p: a["usage"]["prompt_tokens"] < p["usage"]["prompt_tokens"],
    ),
    "echo": ({"continue_final_message": True, "echo": True}, lambda a, p: text_of(a).startswith("Hi there")),
    **SAMPLING,
    "prompt_logprobs": ({"prompt_logprobs": 0}, lambda a, p: a["prompt_logprobs"][0] is None),
    "truncate_prompt_tokens": (
        {
            "truncate_prompt_tokens": 20,
            "messages": [{"role": "user", "content": text} for text in ("x" * 20, "Hi there")],
        },
        same,
    ),
    "return_tokens_as_token_ids": (
        {"return_tokens_as_token_ids": True, "logprobs": True},
        lambda a, p: a["choices"][0]["logprobs"]["content"][0]["token"].startswith("token_id:"),
    ),
}


def vector(answer: Any) -> list[float]:
    values: list[float] = answer["data"][0]["embedding"]
    return values


EMBEDDINGS: dict[str, Case] = {
    "model": ({"model": "tiny-base"}, lambda a, p: vector(a) == pytest.approx(vector(p))),
    "input": ({"input": ["a", "b"]}, lambda a, p: [entry["index"] for entry in a["data"]] == [0, 1]),
    "encoding_format": (
        {"encoding_format": "base64"},
        lambda a, p: array("f", base64.b64decode(a["data"][0]["embedding"])).tolist() == pytest.approx(vector(p)),
    ),
    "dimensions": (
        {"dimensions": 4},
        lambda a, p: len(vector(a)) == 4 and sum(v * v for v in vector(a)) == pytest.approx(1),
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 1}, lambda a, p: a["usage"]["prompt_tokens"] == 1),
    "truncation_side": (
        {"truncation_side": "left", "truncate_prompt_tokens": 1, "input": [[7, 8, 9], [9]]},
        lambda a, p: vector(a) == pytest.approx(a["data"][1]["embedding"], abs=1e-5),
    ),
    "pooling": ({"pooling": "last"}, lambda a, p: vector(a) != pytest.approx(vector(p))),
    "normalize": ({"normalize": False}, lambda a, p: sum(v * v for v in vector(a)) != pytest.approx(1)),
}


def probs(answer: Any) -> list[float]:
    values: list[float] = answer["data"][0]["probs"]
    return values


CLASSIFY: dict[str, Case] = {
    "model": ({"model": "tiny-spam"}, lambda a, p: probs(a) == pytest.approx(probs(p))),
    "input": ({"input": ["The quick", "b"]}, lambda a, p: probs(a) == pytest.approx(probs(p), abs=1e-5)),
    "inputs": ({"input": None, "inputs": "The quick"}, lambda a, p: probs(a) == pytest.approx(probs(p))),
    "top_k": ({"top_k": 1}, lambda a, p: len(a["data"][0]["scores"]) == 1),
    "raw_scores": ({"raw_scores": True}, lambda a, p: a["data"][0]["score"] in a["data"][0]["logits"]),
    "use_activation": ({"use_activation": False}, lambda a, p: "logits" in a["data"][0]),
    "truncate": ({"truncate": True, "input": "x" * 999}, lambda a, p: a["usage"]["prompt_tokens"] == 128),
    "truncation_side": (
        {"truncation_side": "left", "truncate_prompt_tokens": 1, "input": [[7, 8, 9], [9]]},
        lambda a, p: probs(a) == pytest.approx(a["data"][1]["probs"], abs=1e-5),
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 1}, lambda a, p: a["usage"]["prompt_tokens"] == 1),
}

PREDICT: dict[str, Case] = {
    "model": ({"model": "tiny-spam"}, lambda a, p: a[0]["score"] == pytest.approx(p[0]["score"])),
    "inputs": ({"inputs": [["The quick"], ["b"]]}, lambda a, p: len(a) == 2),
    "raw_scores": ({"raw_scores": True}, lambda a, p: sum(entry["score"] for entry in a) != pytest.approx(1)),
    "truncate": ({"truncate": True, "inputs": "x" * 999}, lambda a, p: len(a) == 2),
    "truncation_direction": (
        {"truncation_direction": "Left", "truncate": True, "inputs": ["a" * 99 + "b" * 128, "b" * 128]},
        lambda a, p: a[0][0]["score"] == pytest.approx(a[1][0]["score"], abs=1e-5),
    ),
}

TOKENIZE: dict[str, Case] = {
    "model": ({"model": "tiny-chat"}, lambda a, p: a == p),
    "prompt": ({"prompt": "<|end|>"}, lambda a, p: a["count"] == 1),
    "content": ({"prompt": None, "content": "The quick"}, lambda a, p: a == p),
    "messages": ({"prompt": None, "messages": [{"role": "user", "content": "x"}]}, lambda a, p: a["count"] > 2),
    "add_generation_prompt": (
        {"prompt": None, "messages": [{"role": "user", "content": "x"}], "add_generation_prompt": False},
        lambda a, p: a["count"] == 3,
    ),
    "add_special_tokens": ({"add_special_tokens": False}, lambda a, p: a == p),
    "return_token_strs": ({"return_token_strs": True}, lambda a, p: "".join(a["token_strs"]) == "The quick"),
}

DETOKENIZE: dict[str, Case] = {
    "model": ({"model": "tiny-chat"}, lambda a, p: a == p),
    "tokens": ({"tokens": []}, lambda a, p: a == {"prompt": "", "content": ""}),
}


def said(answer: Any) -> str:
    return str(answer["output"][0]["content"][0]["text"])


RESPONSES: dict[str, Case] = {
    "model": ({"model": "tiny-chat"}, lambda a, p: said(a) == said(p)),
    "input": ({"input": [{"role": "user", "content": "Hi there"}]}, lambda a, p: said(a) == said(p)),
    "instructions": ({"instructions": "x"}, lambda a, p: a["usage"]["input_tokens"] > p["usage"]["input_tokens"]),
    "max_output_tokens": ({"max_output_tokens": 2}, lambda a, p: a["usage"]["output_tokens"] == 2),
    "temperature": ({"temperature": 2}, lambda a, p: said(a) != said(p)),
    "top_p": ({"temperature": 1, "top_p": 0}, lambda a, p: said(a) == said(p)),
    "stream": ({"stream": False}, lambda a, p: said(a) == said(p)),
    "text": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"enum": [17]}}}},
        lambda a, p: said(a) == "17",
    ),
    "top_logprobs": (
        {"top_logprobs": 2},
        lambda a, p: len(a["output"][0]["content"][0]["logprobs"][0]["top_logprobs"]) == 2,
    ),
    "metadata": ({"metadata": {"a": "b"}}, lambda a, p: a["metadata"] == {"a": "b"}),
}

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
ENDPOINTS: dict[str, tuple[type[RequestBody], dict[str, Any], dict[str, Case]]] = {
    "/v1/completions": (CompletionRequest, {"model": "tiny-base", "prompt": "The quick", **GREEDY}, COMPLETIONS),
    "/v1/chat/completions": (
        ChatRequest,
        {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi there"}], **GREEDY},
        CHAT,
    ),
    "/v1/responses": (
        ResponsesRequest,
        {"model": "tiny-chat", "input": "Hi there", "temperature": 0, "max_output_tokens": 12},
        RESPONSES,
    ),
    "/v1/embeddings": (EmbeddingRequest, {"model": "tiny-base", "input": "The quick"}, EMBEDDINGS),
    "/classify": (ClassifyRequest, {"input": "The quick"}, CLASSIFY),
    "/predict": (PredictRequest, {"inputs": "The quick"}, PREDICT),
    "/tokenize": (TokenizeRequest, {"model": "tiny-chat", "prompt": "The quick"}, TOKENIZE),
    "/detokenize": (DetokenizeRequest, {"model": "tiny-chat", "tokens": [1, 2]}, DETOKENIZE),
}


@pytest.fixture(scope="module")
def described(server: Server) -> Any:
    return server.client.get("/openapi.json").json()["paths"]


def refused_fields(described: Any, path: str) -> dict[str, list[Any]]:
    """Fields that exist to be refused, each with the values that are not."""
    schema = described[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return {name: field["enum"] for name, field in schema["properties"].items() if None in field.get("enum", [])}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_each_field_does_what_it_should(server: Server, path: str) -> None:
    _, base, cases = ENDPOINTS[path]
    plain = server.client.post(path, json=base).json()
    unseen = {}
    for name, (changes, seen) in cases.items():
        body = base | dict(changes(plain) if callable(changes) else changes)
        response = server.client.post(path, json=body)
        assert response.status_code == 200, (name, response.text)
        assert "x-ignored-params" not in response.headers, name
        if not seen(response.json(), plain):
            unseen[name] = response.text
    assert not unseen, plain


@pytest.mark.parametrize("path", ENDPOINTS)
def test_no_field_is_left_out(server: Server, described: Any, path: str) -> None:
    body_type, _, cases = ENDPOINTS[path]
    refused = set(refused_fields(described, path)) - {"model"}
    assert set(body_type.model_fields) - refused == set(cases) - refused


@pytest.mark.parametrize("path", ENDPOINTS)
def test_fields_we_do_not_have_are_refused_unless_they_ask_for_nothing(
    server: Server, described: Any, path: str
) -> None:
    _, base, _ = ENDPOINTS[path]
    for name, neutral in refused_fields(described, path).items():
        if name == "model":
            continue
        for value in neutral:
            assert server.client.post(path, json=base | {name: value}).status_code == 200, (name, value)
        error = server.client.post(path, json=base | {name: "something else"}).json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", name)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_fields_without_effect_have_none(server: Server, path: str) -> None:
    body_type, base, _ = ENDPOINTS[path]
    response = server.client.post(path, json=base | dict.fromkeys(body_type.without_effect, "x"))
    assert response.status_code == 200, response.text
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stream_joins_to_the_plain_answer_and_ends_with_its_usage(server: Server, path: str) -> None:
    _, base, _ = ENDPOINTS[path]
    plain = server.client.post(path, json=base).json()
    body = base | {"stream": True, "stream_options": {"include_usage": True}}
    lines = server.client.post(path, json=body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events if event["choices"]]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    assert text == text_of(plain)
    assert events[-1]["usage"]["completion_tokens"] == generated(plain)
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
