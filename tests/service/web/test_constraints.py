"""What an answer must look like, in every spelling: what reaches the worker, what is refused, what comes out."""

import json
import re
from typing import Any

import pytest

from model.grammar import ConstraintSpec
from model.tokenizer import Tokenizer
from service.host.messages import Admitted, Failed
from tests.service.web.conftest import ServiceMaker
from tests.service.web.constrained_worker import obeys
from tests.service.web.scripted_worker import Service

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
NAMED = {"name": "n", "schema": SCHEMA, "strict": True, "description": "a number"}
CHAT = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}
COMPLETION = {"model": "tiny-base", "prompt": "Hello"}
PATHS = [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]

SPELLINGS: list[tuple[dict[str, Any], ConstraintSpec | None]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, ConstraintSpec("json_object")),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, ConstraintSpec("json_schema", json.dumps(SCHEMA))),
    (
        {"response_format": {"type": "json_schema", "json_schema": NAMED}},
        ConstraintSpec("json_schema", json.dumps(SCHEMA)),
    ),
    ({"structured_outputs": {"json": SCHEMA}}, ConstraintSpec("json_schema", json.dumps(SCHEMA))),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, ConstraintSpec("json_schema", json.dumps(SCHEMA))),
    ({"structured_outputs": {"regex": "a+", "json": None}}, ConstraintSpec("regex", "a+")),
    ({"structured_outputs": {"choice": ["a", "b"]}}, ConstraintSpec("choice", '["a", "b"]')),
    (
        {"structured_outputs": {"regex": "a+", "json_object": False, "disable_any_whitespace": False}},
        ConstraintSpec("regex", "a+"),
    ),
    ({"structured_outputs": {"json_object": True}}, ConstraintSpec("json_object")),
    ({"guided_json": SCHEMA}, ConstraintSpec("json_schema", json.dumps(SCHEMA))),
    ({"guided_regex": "a+"}, ConstraintSpec("regex", "a+")),
    ({"guided_choice": ["a", "b"]}, ConstraintSpec("choice", '["a", "b"]')),
    ({"regex": "a+"}, ConstraintSpec("regex", "a+")),
    ({"json_schema": SCHEMA}, ConstraintSpec("json_schema", json.dumps(SCHEMA))),
    ({"guided_decoding_backend": "auto", "guided_json": None}, None),
]


@pytest.mark.parametrize(("fields", "spec"), SPELLINGS)
def test_every_spelling_reaches_the_worker_as_one_thing(
    service: Service, fields: dict[str, Any], spec: ConstraintSpec | None
) -> None:
    for path, body in PATHS:
        service.generate.sent.clear()
        response = service.post(path, {**body, **fields, "max_tokens": 3})
        assert response.status_code == 200, response.text
        (message,) = service.generate.requests
        found = message.constraint
        assert (found and (found.kind, found.text)) == (spec and (spec.kind, spec.text))
        assert found is None or found.opens_text == (path == "/v1/chat/completions")


FORMAT = "response_format"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({FORMAT: {}}, "missing_required_parameter", "response_format.type"),
    ({FORMAT: "json"}, "invalid_type", "response_format"),
    ({FORMAT: {"type": "xml"}}, "invalid_value", "response_format.type"),
    ({FORMAT: {"type": "structural_tag"}}, "unsupported_parameter", "response_format"),
    ({FORMAT: {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"schema": {}}}},
        "missing_required_parameter",
        "response_format.json_schema.name",
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "n"}}},
        "missing_required_parameter",
        "response_format.json_schema.schema",
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "invalid_value",
        "response_format.json_schema.name",
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "n", "schema": [1]}}},
        "invalid_type",
        "response_format.json_schema.schema",
    ),
    ({"structured_outputs": {}}, "invalid_value", "structured_outputs"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "invalid_value", "structured_outputs"),
    ({"structured_outputs": {"grammar": "x"}}, "unsupported_parameter", "structured_outputs.grammar"),
    (
        {"structured_outputs": {"json": {}, "whitespace_pattern": " "}},
        "unsupported_parameter",
        "structured_outputs.whitespace_pattern",
    ),
    ({"structured_outputs": {"json_object": "yes"}}, "invalid_type", "structured_outputs.json_object"),
    ({"structured_outputs": {"choice": []}}, "empty_array", "structured_outputs.choice"),
    ({"guided_choice": ["a", 1]}, "invalid_type", "guided_choice[1]"),
    ({"guided_json": "{"}, "invalid_schema", "guided_json"),
    ({"guided_json": '{"const": NaN}'}, "invalid_schema", "guided_json"),
    ({"guided_regex": 1}, "invalid_type", "guided_regex"),
    ({"guided_regex": "a", "regex": "b"}, "invalid_value", "regex"),
    ({"regex": "a", "ignore_eos": True}, "invalid_value", "ignore_eos"),
    ({"grammar": "root ::= x"}, "unsupported_parameter", "grammar"),
    ({"ebnf": "x"}, "unsupported_parameter", "ebnf"),
    ({"guided_grammar": "x"}, "unsupported_parameter", "guided_grammar"),
    ({"structural_tag": "x"}, "unsupported_parameter", "structural_tag"),
    ({"guided_decoding_backend": "outlines"}, "unsupported_parameter", "guided_decoding_backend"),
    ({"guided_json": {"type": "object", "properties": {"a": {"not": {}}}}}, "invalid_schema", "guided_json"),
    ({"guided_json": {"type": "thing"}}, "invalid_schema", "guided_json"),
    ({"regex": "(?=a)"}, "invalid_schema", "regex"),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "n", "schema": {"$ref": "http://a"}}}},
        "invalid_schema",
        "response_format.json_schema.schema",
    ),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
def test_what_cannot_be_enforced_is_refused_before_a_slot_is_taken(
    service: Service, fields: dict[str, Any], code: str, param: str
) -> None:
    response = service.post("/v1/completions", {**COMPLETION, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error
    assert service.generate.requests == []


def test_a_refusal_names_the_keyword_and_its_place(service: Service) -> None:
    schema = {"type": "object", "properties": {"a/b": {"items": {"contains": {}}}}}
    message = service.post("/v1/completions", {**COMPLETION, "guided_json": schema}).json()["error"]["message"]
    assert "'contains' is not supported (at #/properties/a~1b/items/contains)" in message
    schema = {"type": "object", "properties": {"a/b": {"items": {"type": "thing"}}}}
    message = service.post("/v1/completions", {**COMPLETION, "guided_json": schema}).json()["error"]["message"]
    assert message == "Invalid schema in 'guided_json': Invalid type: thing (at #/properties/a~1b/items)."


def test_a_constraint_that_proves_too_complex_on_the_way_is_the_clients_error(make_service: ServiceMaker) -> None:
    def script(message: Any) -> Any:
        yield Failed(message.uid, "invalid_constraint")

    response = make_service(generate=script).post("/v1/completions", {**COMPLETION, "regex": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_schema"

    def later(message: Any) -> Any:
        yield Admitted(message.uid, 0.0, 0)
        yield Failed(message.uid, "invalid_constraint")

    response = make_service(generate=later).post("/v1/completions", {**COMPLETION, "regex": "a", "stream": True})
    assert '"code":"invalid_schema"' in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_every_choice_obeys(make_service: ServiceMaker, tokenizer: Tokenizer, stream: bool) -> None:
    service = make_service(generate=obeys(tokenizer))
    body = {**COMPLETION, "regex": r"\d{2,4}-[a-f]+", "n": 4, "max_tokens": 90, "seed": 1}
    if stream:
        texts = [""] * 4
        for event in service.stream("/v1/completions", body):
            for choice in event["choices"]:
                texts[choice["index"]] += choice["text"]
    else:
        choices = service.post("/v1/completions", body).json()["choices"]
        assert {choice["finish_reason"] for choice in choices} == {"stop"}
        texts = [choice["text"] for choice in choices]
    assert all(re.fullmatch(r"[0-9]{2,4}-[a-f]+", text) for text in texts)


def test_an_answer_cut_short_is_a_beginning(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=obeys(tokenizer))
    body = {**CHAT, "guided_choice": ["alpha and omega", "beta"], "max_tokens": 2, "seed": 3}
    (choice,) = service.post("/v1/chat/completions", body).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert any(text.startswith(choice["message"]["content"]) for text in body["guided_choice"])


def test_a_stop_string_still_ends_the_answer(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=obeys(tokenizer))
    body = {**COMPLETION, "regex": "abc-def", "stop": "-", "max_tokens": 20}
    (choice,) = service.post("/v1/completions", body).json()["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("abc", "stop", "-")
