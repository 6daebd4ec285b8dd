"""Answers of a given form and calls of functions, as the official client sees them on a real server."""

import re
from collections.abc import Iterator
from typing import Literal

import httpx
import openai
import pytest
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamEvent
from pydantic import BaseModel, Field

from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

HELLO = {"role": "user", "content": "Hello"}


class Pet(BaseModel):
    """A pet."""

    kind: Literal["cat", "dog"]
    age: int = Field(ge=0, le=20)
    friends: list[Literal["a", "b"]] = Field(max_length=2)


class Feed(BaseModel):
    """Give an animal something to eat."""

    grams: Literal[10, 20]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    """A bias against white space, of which a random model writes a lot, leaves room in a context of 128 tokens."""
    return {"model": "tiny-chat", "messages": [HELLO], "seed": 3, "extra_body": {"bad_words": [" ", "\n", "\t"]}}


def test_a_model_class_is_parsed(client: OpenAI, settings: dict[str, object]) -> None:
    answer = client.chat.completions.parse(**settings, response_format=Pet)
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Pet)


def test_the_stream_helper_parses_what_it_streams(client: OpenAI, settings: dict[str, object]) -> None:
    with client.chat.completions.stream(**settings, response_format=Pet) as stream:
        events: list[ChatCompletionStreamEvent[Pet]] = list(stream)
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Pet)
    content = "".join(event.delta for event in events if event.type == "content.delta")
    assert content == final.choices[0].message.content


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "Feed"}}])
def test_the_helpers_parse_calls(client: OpenAI, settings: dict[str, object], choice: object) -> None:
    tools = [openai.pydantic_function_tool(Feed)]
    demands = {**settings, "tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
    (plain,) = client.chat.completions.parse(**demands).choices
    with client.chat.completions.stream(**demands) as stream:
        events = list(stream)
        (streamed,) = stream.get_final_completion().choices
    assert plain.finish_reason == streamed.finish_reason == ("tool_calls" if choice == "required" else "stop")
    assert any(event.type == "tool_calls.function.arguments.done" for event in events)
    for found in (plain, streamed):
        assert found.message.content is None
        (call,) = found.message.tool_calls or []
        assert call.function.name == "Feed"
        assert isinstance(call.function.parsed_arguments, Feed)
    assert plain.message.tool_calls[0].function.arguments == streamed.message.tool_calls[0].function.arguments


def test_expressions_and_choices_in_one_batch_with_free_text(server: Server) -> None:
    bodies = [
        {"prompt": "a", "guided_regex": "[0-9]{3}(,[0-9]{3}){0,3}", "n": 3},
        {"prompt": ["b", "c"], "structured_outputs": {"choice": ["yes", "no"]}, "n": 2, "logprobs": 2},
        {"prompt": "d"},
    ]
    texts = []
    for body in bodies:
        response = server.client.post("/v1/completions", json={"model": "tiny-base", "max_tokens": 100, **body})
        assert response.status_code == 200, response.text
        texts.append([choice["text"] for choice in response.json()["choices"]])
    assert all(re.fullmatch("[0-9]{3}(,[0-9]{3}){0,3}", text) for text in texts[0])
    assert all(text in ("yes", "no") for text in texts[1])


def test_a_schema_that_cannot_be_enforced_is_a_bad_request(client: OpenAI, settings: dict[str, object]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**settings, response_format=form)
    assert caught.value.code == "invalid_schema"
    assert caught.value.param == "response_format.json_schema.schema"
    assert "'uniqueItems' is not supported (at #/uniqueItems)" in caught.value.message


def test_compiling_is_measured(server: Server, client: OpenAI) -> None:
    client.completions.create(model="tiny-base", prompt="a", max_tokens=9, extra_body={"guided_choice": ["once"]})
    page = httpx.get(f"{server.url}/metrics").text
    counts = re.findall(r'groundup_structured_output_compile_seconds_count\{.*model_name="tiny-base".*\} (\S+)', page)
    assert float(counts[0]) >= 1
