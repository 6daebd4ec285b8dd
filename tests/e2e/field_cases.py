"""A case for each field of each request body: values it takes, and what an answer has only where the field is obeyed.

A table per endpoint, in the order of the API. The tests of test_fields.py send them to a real server.
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

Seen = Callable[[Any, Any], object]
"""Given the answer with the field and the answer without, whether the field did what it should."""

Changes = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]
"""What is sent beside the endpoint's own body; it may depend on the answer to that."""


Body = Mapping[str, Any]
Case = tuple[Changes, Seen] | tuple[Changes, Seen, Body]
"""The third, where there is one, is sent in both requests: with the field and without."""


def same(answer: Any, plain: Any) -> bool:
    """Of fields that say what is so anyway; those that have an effect show it."""
    return text_of(answer) == text_of(plain)


def differs(answer: Any, plain: Any) -> bool:
    return not same(answer, plain)


def text_of(answer: Any, index: int = 0) -> str:
    """Return a choice's text, whether it came at once or in a stream's events."""
    if isinstance(answer, list):
        return "".join(text_of(event) for event in answer if event["choices"])
    choice = answer["choices"][index]
    if "delta" in choice:
        return choice["delta"].get("content") or ""
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def generated(answer: Any) -> int:
    return int(answer["usage"]["completion_tokens"])


def num_prompt(answer: Any) -> int:
    return int(answer["usage"]["prompt_tokens"])


def num_cached(answer: Any) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def is_streamed(answer: Any, plain: Any) -> bool:
    return isinstance(answer, list) and same(answer, plain)


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


TEXT_END, USER, C, D, COMMA = "0", "3", "40", "41", "17"
"""Ids of the tiny vocabulary: `<|endoftext|>`, `<|user|>`, two letters, a comma."""
AT_ONCE = {TEXT_END: 100}

OTHER = {"model": "tiny-other"}
"""A model whose vocabulary begins texts with a token, and whose template is longer and has a variable, `mood`."""

LONG_TEXT = "0" * 40
"""More tokens than a page of the cache has."""


def salted(beside: Body) -> Case:
    """Another salt finds nothing of a prompt that was read before."""
    return {"cache_salt": "mine"}, lambda a, p: num_cached(p) > 0 and num_cached(a) == 0, {"max_tokens": 1} | beside


SAMPLING: dict[str, Case] = {
    "temperature": ({"temperature": 2}, differs, {"seed": 1}),
    "top_p": ({"top_p": 0, "temperature": 1}, same),
    "n": ({"n": 3}, lambda answer, plain: len(answer["choices"]) == 3),
    "best_of": ({"n": 2, "best_of": 3, "temperature": 1}, lambda a, p: generated(a) == 3 * generated(p)),
    "stream": ({"stream": True}, is_streamed),
    "stream_options": (
        {"stream_options": {"include_usage": True}},
        lambda a, p: generated(a[-1]) == 12 and a[-1]["choices"] == [],
        {"stream": True},
    ),
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
    "seed": (
        {"seed": 5},
        lambda a, p: same(a, p) and text_of(a, 0) != text_of(a, 1),
        {"seed": 5, "temperature": 1, "n": 2},
    ),
    "response_format": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [17]}}}},
        lambda a, p: text_of(a) == "17",
        {"ignore_eos": False},
    ),
    "top_k": ({"top_k": 1, "temperature": 1}, same),
    "min_p": ({"min_p": 1, "temperature": 1}, same),
    "repetition_penalty": ({"repetition_penalty": 9}, differs),
    "min_tokens": ({"min_tokens": 5, "ignore_eos": False, "logit_bias": AT_ONCE}, lambda a, p: generated(a) == 6),
    "stop_token_ids": ({"stop_token_ids": [40], "logit_bias": {C: 100}}, stopped_by(40)),
    "ignore_eos": (
        {"ignore_eos": False},
        lambda a, p: (generated(a), generated(p)) == (1, 12),
        {"logit_bias": AT_ONCE},
    ),
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
    "return_token_ids": ({"return_token_ids": True}, lambda a, p: len(ids_of(a)) == 12),
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
    "model": ({"model": "tiny-chat"}, differs),
    "prompt": ({"prompt": [[1], [2]]}, lambda a, p: (num_prompt(a), len(a["choices"])) == (2, 2)),
    "max_tokens": ({"max_tokens": 0}, lambda a, p: generated(a) == 0 and ends("length")(a, p)),
    "logprobs": ({"logprobs": 2}, lambda a, p: len(a["choices"][0]["logprobs"]["tokens"]) == 12),
    "echo": ({"echo": True}, lambda a, p: text_of(a) == "The quick" + text_of(p)),
    "parse_special": ({"prompt": "<|end|>", "parse_special": False}, lambda a, p: num_prompt(a) > 1),
    "add_special_tokens": ({"add_special_tokens": False}, lambda a, p: num_prompt(a) == num_prompt(p) - 1, OTHER),
    **SAMPLING,
    "prompt_logprobs": (
        {"prompt_logprobs": 1},
        lambda a, p: [entry is None for entry in a["choices"][0]["prompt_logprobs"]].count(True) == 1,
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 2}, lambda a, p: num_prompt(a) == 2),
    "truncation_side": (
        {"truncate_prompt_tokens": 1, "truncation_side": "right", "echo": True},
        lambda a, p: text_of(a)[0] == "T",
    ),
    "cache_salt": salted({"prompt": LONG_TEXT}),
    "return_tokens_as_token_ids": (
        {"return_tokens_as_token_ids": True, "logprobs": 0},
        lambda a, p: all(token.startswith("token_id:") for token in a["choices"][0]["logprobs"]["tokens"]),
    ),
}


def num_calls(answer: Any) -> int:
    return len(answer["choices"][0]["message"]["tool_calls"])


TOOL = {"type": "function", "function": {"name": "f"}}
CALLED = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}, "ignore_eos": False}

CHAT: dict[str, Case] = {
    "model": (OTHER, lambda a, p: num_prompt(a) > num_prompt(p)),
    "messages": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "xx"}, {"type": "text", "text": "yy"}]}]},
        lambda a, p: num_prompt(a) == len("xxyy") + 3,  # which are no words of the vocabulary
    ),
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
        {"parallel_tool_calls": False},
        lambda a, p: (num_calls(p) > 1, num_calls(a)) == (True, 1),
        CALLED | {"tool_choice": "required", "logit_bias": {COMMA: 100}, "max_tokens": 100},
    ),
    "chat_template_kwargs": (
        {"chat_template_kwargs": {"mood": "good", "unknown": 1}},
        lambda a, p: num_prompt(a) > num_prompt(p),
        OTHER,
    ),
    "add_generation_prompt": (
        {"add_generation_prompt": False},
        lambda a, p: num_prompt(a) == num_prompt(p) - 1,
    ),
    "continue_final_message": (
        {"continue_final_message": True},
        lambda a, p: num_prompt(a) < num_prompt(p),
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
    "cache_salt": salted({"messages": [{"role": "user", "content": LONG_TEXT}]}),
    "return_tokens_as_token_ids": (
        {"return_tokens_as_token_ids": True, "logprobs": True},
        lambda a, p: a["choices"][0]["logprobs"]["content"][0]["token"].startswith("token_id:"),
    ),
}


def vector(answer: Any) -> list[float]:
    values: list[float] = answer["data"][0]["embedding"]
    return values


EMBEDDINGS: dict[str, Case] = {
    "model": ({"model": "tiny-chat"}, lambda a, p: vector(a) != pytest.approx(vector(p))),
    "input": ({"input": ["a", "b"]}, lambda a, p: [entry["index"] for entry in a["data"]] == [0, 1]),
    "encoding_format": (
        {"encoding_format": "base64"},
        lambda a, p: array("f", base64.b64decode(a["data"][0]["embedding"])).tolist() == pytest.approx(vector(p)),
    ),
    "dimensions": (
        {"dimensions": 4},
        lambda a, p: len(vector(a)) == 4 and sum(v * v for v in vector(a)) == pytest.approx(1),
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 1}, lambda a, p: num_prompt(a) == 1),
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
    "model": ({"model": "tiny-topics"}, lambda a, p: probs(a) != pytest.approx(probs(p))),
    "input": (
        {"input": ["The quick", "b"]},
        lambda a, p: probs(a) == pytest.approx(probs(p), abs=1e-5) and len(a["data"]) == 2,
    ),
    "inputs": ({"input": None, "inputs": "The quick"}, lambda a, p: probs(a) == pytest.approx(probs(p))),
    "top_k": ({"top_k": 1}, lambda a, p: len(a["data"][0]["scores"]) == 1),
    "raw_scores": ({"raw_scores": True}, lambda a, p: a["data"][0]["score"] in a["data"][0]["logits"]),
    "use_activation": ({"use_activation": False}, lambda a, p: "logits" in a["data"][0]),
    "truncate": ({"truncate": True, "input": "x" * 999}, lambda a, p: num_prompt(a) == 128),
    "truncation_side": (
        {"truncation_side": "left", "truncate_prompt_tokens": 1, "input": [[7, 8, 9], [9]]},
        lambda a, p: probs(a) == pytest.approx(a["data"][1]["probs"], abs=1e-5),
    ),
    "truncate_prompt_tokens": ({"truncate_prompt_tokens": 1}, lambda a, p: num_prompt(a) == 1),
}

PREDICT: dict[str, Case] = {
    "model": ({"model": "tiny-topics"}, lambda a, p: a[0]["score"] != pytest.approx(p[0]["score"])),
    "inputs": (
        {"inputs": [["The quick"], ["b"]]},
        lambda a, p: a[0][0]["score"] == pytest.approx(p[0]["score"], abs=1e-5),
    ),
    "raw_scores": ({"raw_scores": True}, lambda a, p: sum(entry["score"] for entry in a) != pytest.approx(1)),
    "truncate": ({"truncate": True, "inputs": "x" * 999}, lambda a, p: len(a) == 2),
    "truncation_direction": (
        {"truncation_direction": "Left", "truncate": True, "inputs": ["a" * 99 + "b" * 128, "b" * 128]},
        lambda a, p: a[0][0]["score"] == pytest.approx(a[1][0]["score"], abs=1e-5),
    ),
}

TOKENIZE: dict[str, Case] = {
    "model": (OTHER, lambda a, p: a["tokens"] != p["tokens"]),
    "prompt": ({"prompt": "<|end|>"}, lambda a, p: a["count"] == 1),
    "content": ({"prompt": None, "content": "The quick"}, lambda a, p: a == p),
    "messages": ({"prompt": None, "messages": [{"role": "user", "content": "x"}]}, lambda a, p: a["count"] > 2),
    "add_generation_prompt": (
        {"prompt": None, "messages": [{"role": "user", "content": "x"}], "add_generation_prompt": False},
        lambda a, p: a["count"] == 3,
    ),
    "add_special_tokens": ({"add_special_tokens": False}, lambda a, p: a["tokens"] == p["tokens"][1:], OTHER),
    "return_token_strs": ({"return_token_strs": True}, lambda a, p: "".join(a["token_strs"]) == "The quick"),
}

DETOKENIZE: dict[str, Case] = {
    "model": (OTHER, lambda a, p: a != p),
    "tokens": ({"tokens": []}, lambda a, p: a == {"prompt": "", "content": ""}),
}


def said(answer: Any) -> str:
    return str(answer["output"][0]["content"][0]["text"])


RESPONSES: dict[str, Case] = {
    "model": (OTHER, lambda a, p: a["usage"]["input_tokens"] > p["usage"]["input_tokens"]),
    "input": (
        {"input": [{"role": "assistant", "content": "Hi there"}, {"role": "user", "content": "Hi there"}]},
        lambda a, p: a["usage"]["input_tokens"] == 2 * p["usage"]["input_tokens"] - 1,
    ),
    "instructions": ({"instructions": "x"}, lambda a, p: a["usage"]["input_tokens"] > p["usage"]["input_tokens"]),
    "max_output_tokens": ({"max_output_tokens": 2}, lambda a, p: a["usage"]["output_tokens"] == 2),
    "temperature": ({"temperature": 2}, lambda a, p: said(a) != said(p)),
    "top_p": ({"temperature": 1, "top_p": 0}, lambda a, p: said(a) == said(p)),
    "stream": ({"stream": True}, lambda a, p: isinstance(a, list) and said(a[-1]["response"]) == said(p)),
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
    "/classify": (ClassifyRequest, {"model": "tiny-spam", "input": "The quick"}, CLASSIFY),
    "/predict": (PredictRequest, {"model": "tiny-spam", "inputs": "The quick"}, PREDICT),
    "/tokenize": (TokenizeRequest, {"model": "tiny-chat", "prompt": "The quick"}, TOKENIZE),
    "/detokenize": (DetokenizeRequest, {"model": "tiny-chat", "tokens": [1, 2]}, DETOKENIZE),
}
