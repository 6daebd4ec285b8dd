"""Functions a model is made to call: what is demanded of the worker, what comes out, whole and in pieces."""

import json
from typing import Any

import jsonschema
import pytest

from model.tokenizer import Tokenizer
from service.web.tools import CallReader, ForcedCalls, show_deltas, show_whole
from tests.service.web.conftest import ServiceMaker
from tests.service.web.constrained_worker import obeys
from tests.service.web.scripted_worker import Service

WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "K\u00f6ln", 'the "}]" city']}, "unit": {"$ref": "#/$defs/unit"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"unit": {"enum": ["C", "F"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Look out", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "give_up"}},
]
CHAT = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, "seed": 4}
NAMED = {"type": "function", "function": {"name": "weather"}}
ARGUMENTS = {"weather": WEATHER, "give_up": {"type": "object", "additionalProperties": False}}


@pytest.fixture
def obedient(make_service: ServiceMaker, tokenizer: Tokenizer) -> Service:
    return make_service(generate=obeys(tokenizer))


def test_a_named_function_is_called_once_with_arguments_that_satisfy_its_schema(obedient: Service) -> None:
    answer = obedient.post("/v1/chat/completions", {**CHAT, "tools": TOOLS, "tool_choice": NAMED}).json()
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER)
    assert obedient.generate.requests[0].constraint.opens_text


@pytest.mark.parametrize("seed", range(6))
def test_required_means_some_calls_of_the_functions_there_are(obedient: Service, seed: int) -> None:
    body = {**CHAT, "tools": TOOLS, "tool_choice": "required", "seed": seed}
    (choice,) = obedient.post("/v1/chat/completions", body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    calls = choice["message"]["tool_calls"]
    assert 1 <= len(calls) <= 8
    assert len({call["id"] for call in calls}) == len(calls)
    for call in calls:
        jsonschema.validate(json.loads(call["function"]["arguments"]), ARGUMENTS[call["function"]["name"]])


def test_one_call_at_most_where_several_are_not_wanted(obedient: Service) -> None:
    for seed in range(6):
        body = {**CHAT, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": seed}
        (choice,) = obedient.post("/v1/chat/completions", body).json()["choices"]
        assert len(choice["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("choice", [NAMED, "required"])
def test_streamed_calls_join_to_those_of_the_plain_answer(obedient: Service, choice: object) -> None:
    body = {**CHAT, "tools": TOOLS, "tool_choice": choice, "n": 2}
    plain = obedient.post("/v1/chat/completions", body).json()["choices"]
    joined: list[list[dict[str, Any]]] = [[], []]
    reasons = [None, None]
    events = obedient.stream("/v1/chat/completions", body)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None, "refusal": None}
    for event in events:
        (chunk,) = event["choices"]
        for delta in chunk["delta"].get("tool_calls", []):
            if "id" in delta:
                assert delta["index"] == len(joined[chunk["index"]])
                joined[chunk["index"]].append(dict(delta["function"]))
            else:
                joined[chunk["index"]][delta["index"]]["arguments"] += delta["function"]["arguments"]
        reasons[chunk["index"]] = chunk["finish_reason"] or reasons[chunk["index"]]
    assert joined == [[call["function"] for call in whole["message"]["tool_calls"]] for whole in plain]
    assert reasons == [whole["finish_reason"] for whole in plain]


def test_a_call_cut_short_is_shown_as_far_as_it_came(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=obeys(tokenizer))
    body = {**CHAT, "tools": TOOLS[:1], "tool_choice": "required", "max_tokens": 31}
    choices = service.post("/v1/chat/completions", {**body, "n": 8}).json()["choices"]
    assert {choice["finish_reason"] for choice in choices} == {"length"}
    calls = [call for choice in choices for call in choice["message"].get("tool_calls", [])]
    assert calls
    for call in calls:
        assert call["function"]["name"] == "weather"
        with pytest.raises(ValueError, match=r"delimiter|value|property|Unterminated"):
            json.loads(call["function"]["arguments"])


def test_an_answer_cut_short_before_its_first_call_has_none_and_can_be_sent_back(
    obedient: Service, service: Service
) -> None:
    body = {**CHAT, "tools": TOOLS, "tool_choice": "required", "max_tokens": 1}
    (choice,) = obedient.post("/v1/chat/completions", body).json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")
    assert "tool_calls" not in choice["message"]
    messages = [*CHAT["messages"], choice["message"], {"role": "user", "content": "Go on"}]
    assert service.post("/v1/chat/completions", {**CHAT, "messages": messages, "max_tokens": 3}).status_code == 200


def prompt_of(service: Service, body: dict[str, Any]) -> str:
    response = service.post("/v1/chat/completions", {**CHAT, "max_tokens": 3, **body})
    assert response.status_code == 200, response.text
    return service.models.get("tiny-chat").tokenizer.decode(service.generate.requests[-1].prompt_ids)


@pytest.mark.parametrize("choice", [NAMED, "required"])
def test_the_template_sees_the_functions_that_must_be_called(make_service: ServiceMaker, choice: object) -> None:
    """What a client sends for the template does not replace them."""
    service = make_service(template="{{ tools | tojson }}")
    body = {"tools": TOOLS[1:], "tool_choice": choice, "chat_template_kwargs": {"tools": "none"}}
    if choice == NAMED:
        body["tool_choice"] = {"type": "function", "function": {"name": "give_up"}}
    assert json.loads(prompt_of(service, body)) == TOOLS[1:]
    assert prompt_of(service, body | {"tool_choice": "none", "chat_template_kwargs": {}}) == "null"


def test_the_template_sees_calls_with_their_arguments_as_objects(make_service: ServiceMaker) -> None:
    service = make_service(template="{{ messages[0].content | tojson }}{{ messages[0].tool_calls | tojson }}")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
    seen = {**call, "function": {"name": "f", "arguments": {"a": [1]}}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert prompt_of(service, {"messages": turns}) == f'""[{json.dumps(seen)}]'


def test_the_template_sees_which_call_a_tool_answers(make_service: ServiceMaker) -> None:
    answered = {"role": "tool", "content": "x", "name": "f", "tool_call_id": "c"}
    service = make_service(template="{{ messages[0] | tojson }}")
    assert json.loads(prompt_of(service, {"messages": [answered]})) == answered


@pytest.mark.parametrize(
    ("sent", "seen"),
    [("", {}), ("{}", {}), ({"a": 1}, {"a": 1}), ('{"a": ', '{"a": '), ("[1]", "[1]"), ("[" * 40, "[" * 40)],
)
def test_arguments_that_are_no_object_are_seen_as_they_are(make_service: ServiceMaker, sent: Any, seen: Any) -> None:
    service = make_service(template="{{ messages[0].tool_calls[0].function.arguments | tojson }}")
    call = {"function": {"name": "f", "arguments": sent}}
    assert json.loads(prompt_of(service, {"messages": [{"role": "assistant", "tool_calls": [call]}]})) == seen


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": []}, "empty_array", "tools"),
    ({"tools": TOOLS}, "unsupported_parameter", "tools"),
    ({"tools": TOOLS, "tool_choice": "auto"}, "unsupported_parameter", "tools"),
    ({"tools": [{"type": "custom"}]}, "invalid_value", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "invalid_value",
        "tools[0].function.name",
    ),
    ({"tools": [*TOOLS, TOOLS[0]], "tool_choice": "none"}, "invalid_value", "tools[2].function.name"),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    (
        {"tools": TOOLS, "tool_choice": "required", "continue_final_message": True, "echo": True},
        "invalid_value",
        "echo",
    ),
    ({"tool_choice": NAMED}, "invalid_value", "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "any"}, "invalid_value", "tool_choice"),
    ({"tools": TOOLS, "tool_choice": 3}, "invalid_type", "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.function"),
    ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "invalid_value", "tool_choice.type"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "else"}}},
        "invalid_value",
        "tool_choice",
    ),
    (
        {
            "tools": [TOOLS[1], {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        "invalid_schema",
        "tools[1].function.parameters",
    ),
    (
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"if": {}}}}],
            "tool_choice": "required",
        },
        "invalid_schema",
        "tools",
    ),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
def test_what_cannot_be_demanded_is_refused(service: Service, fields: dict[str, Any], code: str, param: str) -> None:
    response = service.post("/v1/chat/completions", {**CHAT, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error


def test_tools_that_must_not_be_used_change_nothing(service: Service) -> None:
    response = service.post("/v1/chat/completions", {**CHAT, "max_tokens": 3, "tools": TOOLS, "tool_choice": "none"})
    assert response.status_code == 200
    assert "tool_calls" not in response.json()["choices"][0]["message"]
    assert "x-ignored-params" not in response.headers
    assert service.generate.requests[0].constraint is None


def test_tools_that_may_be_used_can_be_ignored_by_setting(make_service: ServiceMaker) -> None:
    service = make_service(tools_auto="ignore")
    response = service.post("/v1/chat/completions", {**CHAT, "max_tokens": 3, "tools": TOOLS})
    assert response.status_code == 200
    assert response.headers["x-ignored-params"] == "tools"
    assert service.generate.requests[0].constraint is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_calls_are_read_from_pieces_of_any_size(size: int) -> None:
    calls = [("f", {"a": 'br{ack"et]s\\'}), ("g-1", {}), ("f", {"b": [{"c": "\u00fc"}]})]
    text = "[" + ", ".join(json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls) + "]"
    forced = ForcedCalls({"f": {}, "g-1": {}}, is_named=False, max_calls=8, param="tools")
    reader = CallReader(forced)
    found: list[list[str]] = []
    for start in range(0, len(text), size):
        for delta in show_deltas(reader.push(text[start : start + size])):
            if "id" in delta:
                found.append([delta["function"]["name"], ""])
            found[delta["index"]][1] += delta["function"]["arguments"]
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls
    assert [each["function"]["name"] for each in show_whole(forced, text)] == [name for name, _ in calls]
