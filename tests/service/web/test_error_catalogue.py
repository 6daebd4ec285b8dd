"""Every error a client can meet, row by row as the API's catalogue lists them: status, type, code, param.

Rows that need a real process (a dead engine, a full machine) have their counterparts in tests/e2e.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.host.messages import Admitted, Drain, Event, Failed, FailureCode, Generate, WorkerDown
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, admitted_then_silent, parse_events

COMPLETIONS, CHAT, CLASSIFY = "/v1/completions", "/v1/chat/completions", "/classify"
BASE: dict[str, Any] = {"model": "tiny-base", "prompt": "Hello"}
TALK: dict[str, Any] = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}
TEXT: dict[str, Any] = {"model": "tiny-spam", "input": "Hello"}
HUGE = 10**300


@dataclass(frozen=True)
class Row:
    """One way to go wrong, and the whole answer to it."""

    path: str
    body: Any
    code: str | None
    param: str | None
    status: int = 400
    message: str = ""
    """Words that the message must have."""
    settings: dict[str, Any] = field(default_factory=dict)


def completion(changes: dict[str, Any], code: str, param: str, **more: Any) -> Row:
    return Row(COMPLETIONS, BASE | changes, code, param, **more)


def chat(changes: dict[str, Any], code: str, param: str, **more: Any) -> Row:
    return Row(CHAT, TALK | changes, code, param, **more)


def message(fields: dict[str, Any], code: str, param: str, **more: Any) -> Row:
    return chat({"messages": [fields]}, code, param, **more)


def embedding(changes: dict[str, Any], code: str, param: str, **more: Any) -> Row:
    return Row("/v1/embeddings", {"model": "tiny-base", "input": "Hello"} | changes, code, param, **more)


CALL: dict[str, Any] = {"role": "assistant", "content": None}
EARLIER: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

MODEL = [
    Row(
        COMPLETIONS,
        {"prompt": "x"},
        "missing_required_parameter",
        "model",
        message="you must provide a model parameter",
    ),
    Row(CHAT, {**TALK, "model": None}, "missing_required_parameter", "model"),
    Row(COMPLETIONS, BASE | {"model": 7}, "invalid_type", "model"),
    Row(COMPLETIONS, BASE | {"model": "nope"}, "model_not_found", "model", 404, "The model `nope` does not exist"),
    Row(
        CHAT, TALK | {"model": "tiny-base"}, "unsupported_model", "model", 404, "This is not a chat model and thus not"
    ),
    Row(CHAT, TALK | {"model": "tiny-base"}, "unsupported_model", "model", 404, "Did you mean to use v1/completions?"),
    Row(COMPLETIONS, BASE | {"model": "tiny-spam"}, "unsupported_model", "model", 404, "Did you mean to use classify?"),
    Row(CLASSIFY, TEXT | {"model": "tiny-chat"}, "unsupported_model", "model", 404, "v1/chat/completions?"),
]

MISSING = [
    Row(COMPLETIONS, {"model": "tiny-base"}, "missing_required_parameter", "prompt", message="parameter: 'prompt'."),
    Row(CHAT, {"model": "tiny-chat"}, "missing_required_parameter", "messages", message="parameter: 'messages'."),
    Row(CLASSIFY, {"model": "tiny-spam"}, "missing_required_parameter", "input"),
    Row("/tokenize", {}, "missing_required_parameter", "prompt"),
    Row("/detokenize", {}, "missing_required_parameter", "tokens"),
    message({"content": "x"}, "missing_required_parameter", "messages[0].role"),
    message({"role": "user"}, "missing_required_parameter", "messages[0].content"),
    message({"role": "user", "content": [{"text": "x"}]}, "missing_required_parameter", "messages[0].content[0].type"),
    message(
        {"role": "user", "content": [{"type": "text"}]}, "missing_required_parameter", "messages[0].content[0].text"
    ),
    message(CALL | {"tool_calls": [{}]}, "missing_required_parameter", "messages[0].tool_calls[0].function"),
    message(
        CALL | {"tool_calls": [{"function": {"name": "f"}}]},
        "missing_required_parameter",
        "messages[0].tool_calls[0].function.arguments",
    ),
    completion({"response_format": {}}, "missing_required_parameter", "response_format.type"),
]

TYPES = [
    completion({"n": "2"}, "invalid_type", "n", message="expected an integer, but got a string instead"),
    completion({"n": True}, "invalid_type", "n", message="expected an integer, but got a boolean instead"),
    completion({"n": 1.5}, "invalid_type", "n", message="expected an integer, but got a number instead"),
    completion({"temperature": "hot"}, "invalid_type", "temperature"),
    completion({"temperature": True}, "invalid_type", "temperature"),
    completion({"stream": "yes"}, "invalid_type", "stream"),
    completion({"prompt": 5}, "invalid_type", "prompt"),
    completion({"prompt": ["a", 1]}, "invalid_type", "prompt[1]"),
    completion({"prompt": [1, "a"]}, "invalid_type", "prompt[1]"),
    completion({"prompt": [[1], "a"]}, "invalid_type", "prompt[1]"),
    completion({"prompt": [[1, True]]}, "invalid_type", "prompt[0][1]"),
    completion({"stop": 5}, "invalid_type", "stop"),
    completion({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
    completion({"logprobs": True}, "invalid_type", "logprobs"),
    completion({"logit_bias": []}, "invalid_type", "logit_bias"),
    completion({"stop_token_ids": ["1"]}, "invalid_type", "stop_token_ids[0]"),
    completion({"response_format": "json"}, "invalid_type", "response_format"),
    completion({"stream": True, "stream_options": 1}, "invalid_type", "stream_options"),
    completion(
        {"stream": True, "stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"
    ),
    chat({"messages": "hi"}, "invalid_type", "messages"),
    message(
        CALL | {"tool_calls": [{"function": {"name": 5}}]}, "invalid_type", "messages[0].tool_calls[0].function.name"
    ),
    message(
        CALL | {"tool_calls": [{"function": {"name": "f", "arguments": 5}}]},
        "invalid_type",
        "messages[0].tool_calls[0].function.arguments",
    ),
    chat({"messages": ["hi"]}, "invalid_type", "messages[0]"),
    message({"role": 1, "content": "x"}, "invalid_type", "messages[0].role"),
    message({"role": "user", "content": 1}, "invalid_type", "messages[0].content"),
    message({"role": "user", "content": None}, "invalid_type", "messages[0].content"),
    message({"role": "assistant", "content": None}, "invalid_type", "messages[0].content"),
    message({"role": "user", "content": ["x"]}, "invalid_type", "messages[0].content[0]"),
    chat({"logprobs": 1}, "invalid_type", "logprobs"),
    chat({"chat_template_kwargs": []}, "invalid_type", "chat_template_kwargs"),
    Row(CLASSIFY, TEXT | {"input": {"a": 1}}, "invalid_type", "input"),
    Row(CLASSIFY, TEXT | {"raw_scores": 1}, "invalid_type", "raw_scores"),
    Row("/detokenize", {"tokens": "x"}, "invalid_type", "tokens"),
]

RANGES = [
    completion({"n": 0}, "integer_below_min_value", "n"),
    completion({"n": 17}, "integer_above_max_value", "n", message="Expected a value <= 16, but got 17 instead."),
    completion({"n": HUGE}, "integer_above_max_value", "n"),
    completion({"max_tokens": -1}, "integer_below_min_value", "max_tokens"),
    completion({"temperature": -0.1}, "decimal_below_min_value", "temperature"),
    completion({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
    completion({"top_p": 1.1}, "decimal_above_max_value", "top_p"),
    completion({"presence_penalty": -2.5}, "decimal_below_min_value", "presence_penalty"),
    completion({"frequency_penalty": 2.5}, "decimal_above_max_value", "frequency_penalty"),
    completion({"logprobs": 6}, "integer_above_max_value", "logprobs"),
    completion({"best_of": 21}, "integer_above_max_value", "best_of"),
    completion({"n": 4, "best_of": 5}, "integer_above_max_value", "best_of", message="'n' times 'best_of' <= 16"),
    completion({"best_of": -1}, "integer_below_min_value", "best_of"),
    completion({"prompt_logprobs": 21}, "integer_above_max_value", "prompt_logprobs"),
    completion({"prompt_logprobs": -1}, "integer_below_min_value", "prompt_logprobs"),
    completion({"seed": 2**63}, "integer_above_max_value", "seed"),
    completion({"seed": -(2**63) - 1}, "integer_below_min_value", "seed"),
    completion({"top_k": -2}, "integer_below_min_value", "top_k"),
    completion({"min_p": 1.5}, "decimal_above_max_value", "min_p"),
    completion({"repetition_penalty": 0}, "decimal_below_min_value", "repetition_penalty"),
    completion({"repetition_penalty": 11}, "decimal_above_max_value", "repetition_penalty"),
    completion({"min_tokens": -1}, "integer_below_min_value", "min_tokens"),
    chat({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    chat({"max_completion_tokens": 0}, "integer_below_min_value", "max_completion_tokens"),
    chat({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    Row(CLASSIFY, TEXT | {"top_k": 0}, "integer_below_min_value", "top_k"),
    Row(CLASSIFY, TEXT | {"top_k": 3}, "integer_above_max_value", "top_k"),
]

VALUES = [
    message({"role": "boss", "content": "x"}, "invalid_value", "messages[0].role", message="'system', 'developer'"),
    message(
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        "invalid_value",
        "messages[0].content[0].type",
        message="Image input is not supported by this model",
    ),
    message(
        {"role": "user", "content": [{"type": "input_audio"}]},
        "invalid_value",
        "messages[0].content[0].type",
        message="Audio input is not supported by this model",
    ),
    completion({"truncation_side": "up"}, "invalid_value", "truncation_side", message="values are: 'left', 'right'."),
    completion({"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
    completion({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    completion({"stop": ""}, "invalid_value", "stop"),
    completion({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
    completion({"n": 3, "best_of": 2}, "invalid_value", "best_of"),
    completion({"n": 1, "best_of": 2, "stream": True}, "invalid_value", "best_of"),
    completion({"stream_options": {}}, "invalid_value", "stream_options"),
    completion({"prompt_logprobs": 1, "stream": True}, "invalid_value", "prompt_logprobs"),
    completion({"min_tokens": 17}, "invalid_value", "min_tokens"),
    completion({"request_id": "two words"}, "invalid_value", "request_id"),
    chat({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    chat({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    chat({"tools": [{"type": "custom"}]}, "invalid_value", "tools[0].type"),
    chat({"add_generation_prompt": True, "continue_final_message": True}, "invalid_value", "continue_final_message"),
    chat({"echo": True}, "invalid_value", "echo"),
    chat(
        {"messages": [CALL | {"content": "x", "tool_calls": [EARLIER]}], "continue_final_message": True},
        "invalid_value",
        "continue_final_message",
        message="calls of functions",
    ),
    Row(CLASSIFY, TEXT | {"input": ""}, "invalid_value", "input"),
    Row(CLASSIFY, TEXT | {"input": ["a", ""]}, "invalid_value", "input[1]"),
    Row(CLASSIFY, TEXT | {"inputs": "b"}, "invalid_value", "inputs"),
    Row(CLASSIFY, TEXT | {"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
    Row("/tokenize", {"prompt": "a", "content": "b"}, "invalid_value", "content"),
    Row("/tokenize", {"model": "tiny-base", "messages": TALK["messages"]}, "invalid_value", "messages"),
]

ARRAYS_AND_STRINGS = [
    completion({"prompt": []}, "empty_array", "prompt"),
    completion({"prompt": [[]]}, "empty_array", "prompt[0]"),
    chat(
        {"messages": []},
        "empty_array",
        "messages",
        message="Expected an array with minimum length 1, but got an empty array instead.",
    ),
    message({"role": "user", "content": []}, "empty_array", "messages[0].content"),
    chat({"tools": []}, "empty_array", "tools"),
    completion({"allowed_token_ids": []}, "empty_array", "allowed_token_ids"),
    Row(CLASSIFY, TEXT | {"input": []}, "empty_array", "input"),
    completion(
        {"stop": ["a", "b", "c", "d", "e"]},
        "array_above_max_length",
        "stop",
        message="Expected an array with maximum length 4, but got an array with length 5 instead.",
    ),
    completion({"prompt": ["a"] * 129}, "array_above_max_length", "prompt"),
    completion({"stop_token_ids": [1] * 65}, "array_above_max_length", "stop_token_ids"),
    Row(CLASSIFY, TEXT | {"input": ["a"] * 257}, "array_above_max_length", "input"),
    completion({"bad_words": ["a"] * 129}, "array_above_max_length", "bad_words"),
    completion({"stop": "x" * 1001}, "string_above_max_length", "stop"),
    completion({"bad_words": ["x" * 1001]}, "string_above_max_length", "bad_words[0]"),
    completion({"bad_words": [""]}, "invalid_value", "bad_words[0]"),
]

UNSUPPORTED_COMPLETION = {
    "suffix": "end",
    "use_beam_search": True,
    "length_penalty": 2.0,
    "prompt_embeds": "x",
    "priority": 1,
    "guided_grammar": "a",
    "guided_decoding_backend": "x",
    "grammar": "a",
    "ebnf": "a",
    "structural_tag": {},
}

UNSUPPORTED_CHAT = {
    "functions": [{}],
    "function_call": "auto",
    "modalities": ["audio"],
    "audio": {},
    "web_search_options": {},
    "moderation": {},
    "chat_template": "x",
    "documents": [{}],
    "mm_processor_kwargs": {},
    "truncation_side": "right",
    "tools": [{"type": "function", "function": {"name": "f"}}],
}

UNSUPPORTED = [
    *(
        completion({name: value}, "unsupported_parameter", name, message=f"Unsupported parameter: '{name}'")
        for name, value in UNSUPPORTED_COMPLETION.items()
    ),
    *(chat({name: value}, "unsupported_parameter", name) for name, value in UNSUPPORTED_CHAT.items()),
    Row(
        COMPLETIONS,
        BASE | {"colour": 1},
        None,
        None,
        message="Unrecognized request argument supplied: colour",
        settings={"strict_params": True},
    ),
]

TOKENS = [
    completion({"prompt": [1, 384]}, "invalid_token_id", "prompt[1]", message="token id 384 is not in the vocabulary"),
    completion({"prompt": [[1], [2, -1]]}, "invalid_token_id", "prompt[1][1]", message="which has 384 tokens"),
    completion({"prompt": [HUGE]}, "invalid_token_id", "prompt[0]"),
    completion({"stop_token_ids": [5, 400]}, "invalid_token_id", "stop_token_ids[1]"),
    completion({"allowed_token_ids": [384]}, "invalid_token_id", "allowed_token_ids[0]"),
    Row(CLASSIFY, TEXT | {"input": [[1], [999]]}, "invalid_token_id", "input[1][0]"),
    Row("/detokenize", {"tokens": [1, 999]}, "invalid_token_id", "tokens[1]"),
    completion({"logit_bias": {"x": 1}}, "invalid_logit_bias", "logit_bias"),
    completion({"logit_bias": {"384": 1}}, "invalid_logit_bias", "logit_bias"),
    completion({"logit_bias": {"1": 101}}, "invalid_logit_bias", "logit_bias"),
    completion({"logit_bias": {"1": "x"}}, "invalid_logit_bias", "logit_bias"),
    completion({"logit_bias": {str(i): 1 for i in range(1025)}}, "invalid_logit_bias", "logit_bias"),
]

CONTEXT = [
    completion(
        {"prompt": [7] * 120, "max_tokens": 9},
        "context_length_exceeded",
        "prompt",
        message="This model's maximum context length is 128 tokens, however you requested 129 tokens "
        "(120 in your prompt; 9 for the completion). Please reduce your prompt; or completion length.",
    ),
    completion({"max_tokens": HUGE}, "context_length_exceeded", "prompt"),
    completion(
        {"prompt": [7] * 129, "max_tokens": 0},
        "context_length_exceeded",
        "prompt",
        settings={"max_tokens_policy": "clamp"},
    ),
    message(
        {"role": "user", "content": "x" * 500},
        "context_length_exceeded",
        "messages",
        message="This model's maximum context length is 128 tokens. However, your messages resulted in 503 tokens. "
        "Please reduce the length of the messages.",
    ),
    chat({"max_tokens": 128}, "context_length_exceeded", "messages"),
    Row(CLASSIFY, TEXT | {"input": "x" * 500}, "context_length_exceeded", "input"),
]

EMBEDDING = [
    embedding({"input": ""}, "invalid_value", "input", message="no text"),
    embedding({"input": ["a", ""]}, "invalid_value", "input[1]"),
    embedding({"input": []}, "empty_array", "input"),
    embedding({"input": [[]]}, "empty_array", "input[0]"),
    embedding({"input": None}, "missing_required_parameter", "input"),
    embedding({"input": 7}, "invalid_type", "input"),
    embedding({"input": ["a", 7]}, "invalid_type", "input[1]"),
    embedding({"input": ["a"] * 5}, "array_above_max_length", "input", settings={"max_embedding_items": 4}),
    embedding(
        {"input": [[1] * 9] * 2},
        "array_above_max_length",
        "input",
        message="got 18",
        settings={"max_embedding_tokens": 17},
    ),
    embedding({"input": [1] * 129}, "context_length_exceeded", "input", message="maximum context length is 128 tokens"),
    embedding({"input": [1, 384]}, "invalid_token_id", "input[1]", message="check_embedding_ctx_length=False"),
    embedding(
        {"input": [1]},
        "invalid_type",
        "input",
        message="texts only",
        settings={"embeddings_accept_token_ids": False},
    ),
    embedding({"encoding_format": "hex"}, "invalid_value", "encoding_format", message="values are: 'float', 'base64'."),
    embedding({"dimensions": 0}, "integer_below_min_value", "dimensions"),
    embedding({"dimensions": 33}, "integer_above_max_value", "dimensions", message="Expected a value <= 32"),
    embedding({"pooling": "max"}, "invalid_value", "pooling"),
    embedding({"normalize": 1}, "invalid_type", "normalize"),
    embedding({"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
    embedding({"model": "tiny-spam"}, "unsupported_model", "model", status=404, message="not a text embedding model"),
    embedding({"model": None}, "missing_required_parameter", "model"),
]

ALL = [*EMBEDDING, *MODEL, *MISSING, *TYPES, *RANGES, *VALUES, *ARRAYS_AND_STRINGS, *UNSUPPORTED, *TOKENS, *CONTEXT]


def check(
    response: Any, status: int, code: str | None, param: str | None, *, type_: str = "invalid_request_error"
) -> str:
    """Compare the whole error object; return its message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert (error["type"], error["code"], error["param"]) == (type_, code, param)
    assert 0 < len(error["message"]) <= 1000
    assert response.headers["x-request-id"]
    return str(error["message"])


@pytest.mark.parametrize("row", ALL, ids=lambda row: f"{row.path}-{row.code}-{row.param}")
def test_bad_body_gets_its_error_before_a_slot_is_taken(make_service: ServiceMaker, row: Row) -> None:
    service = make_service(**row.settings)
    response = service.post(row.path, row.body)
    assert row.message in check(response, row.status, row.code, row.param)
    assert service.generate.sent == service.classify.sent == []


@pytest.mark.parametrize("row", [row for row in ALL if row.path == COMPLETIONS][::5], ids=lambda row: str(row.param))
def test_a_stream_that_cannot_start_gets_the_same_error(make_service: ServiceMaker, row: Row) -> None:
    response = make_service(**row.settings).post(row.path, {"stream": True, **row.body})
    check(response, row.status, row.code, row.param)


MALFORMED = {
    "empty": b"",
    "not JSON": b"{prompt: 1}",
    "array": b"[]",
    "string": b'"x"',
    "NaN": b'{"temperature": NaN}',
    "Infinity": b'{"temperature": -Infinity}',
    "overflowing float": b'{"temperature": 1e999}',
    "overflowing integer": b'{"seed": 1' + b"0" * 400 + b"}",
    "endless integer": b'{"seed": ' + b"9" * 5000 + b"}",
    "invalid UTF-8": b'{"prompt": "\xff"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "lone surrogate in a key": b'{"\\uDFFF": 1}',
    "too deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep enough to trouble a template": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "two values": b"{} {}",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_400(service: Service, content: bytes) -> None:
    response = service.request("POST", COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert "We could not parse the JSON body of your request." in check(response, 400, None, None)


def test_surrogate_pairs_and_escaped_backslashes_are_fine(service: Service) -> None:
    content = b'{"model": "tiny-base", "prompt": "\\ud83d\\ude42 \\\\ud800", "max_tokens": 3}'
    response = service.request("POST", COMPLETIONS, content=content)
    assert response.status_code == 200, response.text


def test_body_too_large_is_413(make_service: ServiceMaker) -> None:
    service = make_service(max_body_bytes=100)
    response = service.post(COMPLETIONS, BASE | {"prompt": "x" * 100})
    check(response, 413, "request_too_large", None)
    assert response.headers["connection"] == "close"


def test_body_too_large_without_a_length_is_413(make_service: ServiceMaker) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 10

    response = make_service(max_body_bytes=100).request("POST", COMPLETIONS, content=chunks())
    check(response, 413, "request_too_large", None)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_other_content_types_are_415(service: Service, content_type: str) -> None:
    response = service.request("POST", COMPLETIONS, content=b"{}", headers={"content-type": content_type})
    assert "Content-Type: application/json" in check(response, 415, "unsupported_media_type", None)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_json_content_types_are_accepted(service: Service, content_type: str) -> None:
    content = b'{"model": "tiny-base", "prompt": "a", "max_tokens": 3}'
    response = service.request("POST", COMPLETIONS, content=content, headers={"content-type": content_type})
    assert response.status_code == 200, response.text


def test_unknown_path_is_404(service: Service) -> None:
    assert "Invalid URL (POST /v1/x)" in check(service.post("/v1/x", {}), 404, "unknown_url", None)
    for path in ("/", "/docs", "/redoc", "/info", "/v1/moderations"):
        check(service.get(path), 404, "unknown_url", None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", COMPLETIONS, "POST"),
        ("GET", "/v1/chat", "POST"),
        ("DELETE", "/v1/models/tiny-base", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
        ("OPTIONS", CLASSIFY, "POST"),
    ],
)
def test_wrong_method_is_405_and_says_which_are_right(service: Service, method: str, path: str, allow: str) -> None:
    response = service.request(method, path)
    assert f"Not allowed to {method} on {path}." in check(response, 405, "method_not_supported", None)
    assert response.headers["allow"] == allow


def test_unknown_model_in_a_path_is_404(service: Service) -> None:
    for name in ("nope", "org/nope"):
        message = check(service.get(f"/v1/models/{name}"), 404, "model_not_found", "model")
        assert f"The model '{name}' does not exist" in message


KEYS = {"api_keys": ["alice:sesame", "opensesame2"]}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic c2VzYW1l"}, {"authorization": "Bearer"}])
def test_no_key_is_401(make_service: ServiceMaker, headers: dict[str, str]) -> None:
    response = make_service(**KEYS).post(COMPLETIONS, BASE, headers=headers)
    assert "You didn't provide an API key" in check(response, 401, None, None)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{"authorization": "Bearer sesam"}, {"x-api-key": "alice:sesame"}])
def test_wrong_key_is_401(make_service: ServiceMaker, headers: dict[str, str]) -> None:
    response = make_service(**KEYS).post(COMPLETIONS, BASE, headers=headers)
    assert "Incorrect API key provided." in check(response, 401, "invalid_api_key", None)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer sesame"}, {"authorization": "bearer opensesame2"}, {"x-api-key": "opensesame2"}],
)
def test_each_key_opens(make_service: ServiceMaker, headers: dict[str, str]) -> None:
    assert make_service(**KEYS).post(COMPLETIONS, BASE, headers=headers).status_code == 200


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, CLASSIFY, "/v1/models", "/tokenize", "/tokenizer_info", "/nope"])
def test_every_path_but_the_public_ones_is_guarded(make_service: ServiceMaker, path: str) -> None:
    check(make_service(**KEYS).get(path), 401, None, None)


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/livez", "/readyz", "/metrics"])
def test_probes_need_no_key(make_service: ServiceMaker, path: str) -> None:
    assert make_service(**KEYS).get(path).status_code == 200


def test_metrics_can_want_a_key(make_service: ServiceMaker) -> None:
    service = make_service(metrics_require_key=True, **KEYS)
    check(service.get("/metrics"), 401, None, None)
    assert service.get("/metrics", headers={"authorization": "Bearer sesame"}).status_code == 200


def test_checks_come_in_the_order_of_the_catalogue(make_service: ServiceMaker) -> None:
    """413, 415, 401, 404 or 405, JSON, model, fields, rules between fields, context; the first that fails answers."""
    service = make_service(max_body_bytes=1000, **KEYS)
    text, key = {"content-type": "text/plain"}, {"authorization": "Bearer sesame"}
    big = b"x" * 2000
    check(service.request("POST", "/nope", content=big, headers=text), 413, "request_too_large", None)
    check(service.request("POST", "/nope", content=b"x", headers=text), 415, "unsupported_media_type", None)
    check(service.request("POST", "/nope", content=b"x"), 401, None, None)
    check(service.request("POST", "/nope", content=b"x", headers=key), 404, "unknown_url", None)
    check(service.request("POST", "/v1/models", content=b"x", headers=key), 405, "method_not_supported", None)
    check(service.request("POST", CHAT, content=b"x", headers=key), 400, None, None)
    bad: dict[str, Any] = {"model": "nope", "messages": [], "n": 0, "echo": True}
    check(service.post(CHAT, bad, headers=key), 404, "model_not_found", "model")
    check(service.post(CHAT, bad | {"model": "tiny-chat"}, headers=key), 400, "empty_array", "messages")
    long = [{"role": "user", "content": "x" * 500}]
    bad |= {"model": "tiny-chat", "messages": long}
    check(service.post(CHAT, bad, headers=key), 400, "integer_below_min_value", "n")
    check(service.post(CHAT, bad | {"n": 1}, headers=key), 400, "invalid_value", "echo")
    check(service.post(CHAT, bad | {"n": 1, "echo": False}, headers=key), 400, "context_length_exceeded", "messages")


# What is not the client's fault

DETAILS = {
    "queue_timeout": (503, "queue_timeout"),
    "timeout": (504, "timeout"),
    "internal_error": (500, "internal_error"),
}


def fails(code: FailureCode, *, admitted: bool) -> Callable[[Generate], Iterable[Event]]:
    def script(message: Generate) -> Iterable[Event]:
        if admitted:
            yield Admitted(message.uid, 0.0, 0)
        yield Failed(message.uid, code)

    return script


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("code", DETAILS)
def test_failure_before_the_first_byte_has_its_status(
    make_service: ServiceMaker, code: FailureCode, stream: bool
) -> None:
    service = make_service(generate=fails(code, admitted=False))
    response = service.post(COMPLETIONS, BASE | {"stream": stream})
    message = check(response, DETAILS[code][0], DETAILS[code][1], None, type_="server_error")
    assert response.headers["x-request-id"] in message
    assert response.headers.get("retry-after") == ("1" if code == "queue_timeout" else None)
    assert response.headers.get("x-should-retry") == ("false" if code == "timeout" else None)


@pytest.mark.parametrize("code", DETAILS)
def test_failure_inside_a_stream_is_an_event_and_the_end(make_service: ServiceMaker, code: FailureCode) -> None:
    response = make_service(generate=fails(code, admitted=True)).post(CHAT, TALK | {"stream": True})
    assert response.status_code == 200
    role, error = parse_events(response.text)
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert sorted(error["error"]) == ["code", "message", "param", "type"]
    assert (error["error"]["type"], error["error"]["code"]) == ("server_error", DETAILS[code][1])


def test_model_loading_is_503(make_service: ServiceMaker) -> None:
    response = make_service(is_up=False).post(COMPLETIONS, BASE)
    check(response, 503, "model_loading", None, type_="server_error")
    assert int(response.headers["retry-after"]) <= 60


def test_engine_that_died_is_503(service: Service) -> None:
    service.frontend.on_message(WorkerDown("generate", 1))
    response = service.post(COMPLETIONS, BASE)
    check(response, 503, "engine_unavailable", None, type_="server_error")
    assert int(response.headers["retry-after"]) <= 60
    assert service.get("/readyz").status_code == 503


def test_shutting_down_is_503_and_closes_the_connection(service: Service) -> None:
    service.frontend.on_message(Drain("unready"))
    assert service.post(COMPLETIONS, BASE).status_code == 200
    service.frontend.on_message(Drain("reject"))
    response = service.post(COMPLETIONS, BASE)
    check(response, 503, "server_shutting_down", None, type_="server_error")
    assert response.headers["retry-after"] == "1"
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("overload_status", [503, 429])
def test_full_queue_is_overload(make_service: ServiceMaker, overload_status: int) -> None:
    service = make_service(max_waiting_requests=3, overload_status=overload_status)
    response = service.post(COMPLETIONS, BASE | {"prompt": ["a", "b"], "n": 2})
    check(response, overload_status, "server_overloaded", None, type_="server_error")
    assert int(response.headers["retry-after"]) <= 60
    assert service.generate.sent == []


def test_too_many_waiting_tokens_are_overload(make_service: ServiceMaker) -> None:
    response = make_service(max_waiting_tokens=10).post(COMPLETIONS, BASE | {"prompt": [7] * 11})
    check(response, 503, "server_overloaded", None, type_="server_error")


@pytest.mark.parametrize("stream", [False, True])
def test_engine_that_dies_fails_what_it_was_doing(make_service: ServiceMaker, stream: bool) -> None:
    def script(message: Generate) -> Iterable[Event]:
        yield Admitted(message.uid, 0.0, 0)
        service.frontend.on_message(WorkerDown("generate", 1))

    service = make_service(generate=script)
    response = service.post(COMPLETIONS, BASE | {"stream": stream, "n": 2})
    if stream:
        *_, last = parse_events(response.text)
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "internal_error")
    else:
        check(response, 500, "internal_error", None, type_="server_error")
    assert service.generate.cancelled == []


def test_aborted_while_shutting_down_is_an_event(make_service: ServiceMaker) -> None:
    service = make_service(generate=admitted_then_silent)

    def script(message: Generate) -> Iterable[Event]:
        yield Admitted(message.uid, 0.0, 0)
        service.frontend.on_message(Drain("abort"))

    service.generate.script = script
    *_, error = parse_events(service.post(COMPLETIONS, BASE | {"stream": True}).text)
    assert error["error"]["code"] == "server_shutting_down"
    assert len(service.generate.cancelled) == 1


def test_a_fault_of_ours_is_a_500_that_tells_nothing(make_service: ServiceMaker) -> None:
    def broken(_: Generate) -> Iterable[Event]:
        raise RuntimeError("secret path /etc/passwd")

    response = make_service(generate=broken).post(COMPLETIONS, BASE)
    assert "secret" not in check(response, 500, "internal_error", None, type_="server_error")


def test_offending_values_are_echoed_in_part_only(service: Service) -> None:
    role = "boss" * 100_000
    response = service.post(CHAT, TALK | {"messages": [{"role": role, "content": "x"}]})
    assert len(check(response, 400, "invalid_value", "messages[0].role")) < 400
    response = service.post(COMPLETIONS, BASE | {"model": "x" * 5000})
    assert len(check(response, 404, "model_not_found", "model")) < 400
