"""POST /v1/responses in front of a scripted worker."""

import json
from typing import Any

import pytest

from model.tokenizer import Tokenizer
from service.host.messages import Failed, TokenLogprob
from tests.service.web.conftest import ServiceMaker
from tests.service.web.constrained_worker import obeys
from tests.service.web.scripted_worker import Service, admitted_then_silent, writes

PATH = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
BASE: dict[str, Any] = {"model": "tiny-chat", "input": "Hello"}


def events_of(service: Service, **changes: Any) -> list[Any]:
    response = service.post(PATH, BASE | {"stream": True} | changes)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


@pytest.fixture
def done(make_service: ServiceMaker, tokenizer: Tokenizer) -> Service:
    """Every answer is `Hi!`, ended by the model."""
    return make_service(generate=writes([*tokenizer.encode("Hi!"), tokenizer.eos_id], finish="stop"))


def test_answer_has_the_whole_object(done: Service, tokenizer: Tokenizer) -> None:
    answer = done.post(PATH, BASE | {"metadata": {"a": "b"}, "store": True, "user": "me"}).json()
    assert answer["id"].startswith("resp_")
    assert (answer["object"], answer["status"], answer["model"]) == ("response", "completed", "tiny-chat")
    assert (answer["error"], answer["incomplete_details"], answer["store"]) == (None, None, False)
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "Hi!", "annotations": [], "logprobs": []}]
    num_output = len(tokenizer.encode("Hi!")) + 1
    num_input = len(done.generate.requests[0].prompt_ids)
    assert answer["usage"] == {
        "input_tokens": num_input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": num_output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": num_input + num_output,
    }
    assert answer["metadata"] == {"a": "b"}


def test_a_conversation_is_read_as_chat_reads_it(service: Service) -> None:
    parts = [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]
    service.post(PATH, BASE | {"input": [{"role": "user", "content": parts}], "instructions": "Be brief."})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    service.post("/v1/chat/completions", {"model": "tiny-chat", "messages": messages})
    ours, chat = service.generate.requests
    assert ours.prompt_ids == chat.prompt_ids
    assert ours.params.max_tokens == chat.params.max_tokens


def test_an_answer_that_was_cut_short_is_incomplete(service: Service) -> None:
    answer = service.post(PATH, BASE | {"max_output_tokens": 3}).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert service.generate.requests[0].params.max_tokens == 3
    assert events_of(service)[-1]["type"] == "response.incomplete"


def test_a_stream_tells_the_answer_piece_by_piece(done: Service) -> None:
    events = events_of(done)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in deltas) == events[-4]["text"] == "Hi!"
    item_id = events[2]["item"]["id"]
    assert {(event["item_id"], event["output_index"], event["content_index"]) for event in deltas} == {(item_id, 0, 0)}
    assert [event["logprobs"] for event in deltas] == [[]] * len(deltas)
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["output"][0] == events[-2]["item"]


def test_scores_come_with_the_text(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    scores = [TokenLogprob(-1.0, [(9, -0.5)])]
    service = make_service(generate=writes(tokenizer.encode("H"), logprobs=scores))
    (entry,) = service.post(PATH, BASE | {"top_logprobs": 1}).json()["output"][0]["content"][0]["logprobs"]
    assert (entry["token"], entry["logprob"], len(entry["top_logprobs"])) == ("H", -1.0, 1)


def test_a_stream_that_fails_says_so(make_service: ServiceMaker) -> None:
    def script(message: Any) -> Any:
        yield from admitted_then_silent(message)
        yield Failed(message.uid, "timeout")

    last = events_of(make_service(generate=script))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"


def test_a_schema_reaches_the_worker(service: Service) -> None:
    shape = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    answer = service.post(PATH, BASE | {"text": {"format": shape}})
    assert answer.status_code == 200, answer.text
    assert service.generate.requests[0].constraint.kind == "json_schema"
    assert answer.json()["text"] == {"format": shape}


@pytest.mark.parametrize("text", [{}, {"format": None}, {"format": {"type": "text"}, "verbosity": "low"}])
def test_no_form_is_plain_text(service: Service, text: dict[str, Any]) -> None:
    answer = service.post(PATH, BASE | {"text": text})
    assert answer.status_code == 200, answer.text
    assert service.generate.requests[0].constraint is None
    assert answer.json()["text"] == {"format": {"type": "text"}}


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema", "name": "x", "schema": SCHEMA}])
def test_an_answer_has_the_form_that_was_asked_for(
    make_service: ServiceMaker, tokenizer: Tokenizer, form: dict[str, Any]
) -> None:
    service = make_service(generate=obeys(tokenizer))
    changes = {"text": {"format": form}, "max_output_tokens": 100}
    answer = service.post(PATH, BASE | changes).json()
    streamed = events_of(service, **changes)[-1]["response"]
    for each in (answer, streamed):
        text = each["output"][0]["content"][0]["text"]
        assert each["status"] == "incomplete" or isinstance(json.loads(text), dict)
        assert each["text"] == {"format": form}
    if form["type"] == "json_schema":
        assert answer["status"] == "completed"
        assert json.loads(answer["output"][0]["content"][0]["text"])["n"] in (1, 2)


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": []}, "empty_array", "input"),
        ({"input": 7}, "invalid_type", "input"),
        ({"input": [{"role": "boss", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "invalid_value", "input[0].type"),
        ({"input": "x" * 500}, "context_length_exceeded", "input"),
        ({"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
        ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
        ({"temperature": 3}, "decimal_above_max_value", "temperature"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"items": {"not": {}}}}}},
            "invalid_schema",
            "text.format.schema",
        ),
        ({"text": {"format": "json"}}, "invalid_type", "text.format"),
        ({"text": {"format": {"type": "json_schema"}}}, "missing_required_parameter", "text.format.name"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        *(
            ({name: value}, "unsupported_parameter", name)
            for name, value in {
                "truncation": "auto",
                "previous_response_id": "resp_1",
                "conversation": "c",
                "background": True,
                "tools": [{"type": "web_search"}],
                "include": ["x"],
                "prompt": {"id": "x"},
            }.items()
        ),
    ],
)
def test_what_is_wrong_is_named(service: Service, changes: dict[str, Any], code: str, param: str) -> None:
    response = service.post(PATH, BASE | changes)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param), error
    assert service.generate.sent == []
