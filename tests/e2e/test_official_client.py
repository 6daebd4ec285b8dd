"""What the official client sees of a real server: objects, streams, error classes, helpers."""

from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from model.tokenizer import Tokenizer
from tests.e2e.conftest import Serve, Server

pytestmark = pytest.mark.slow

HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_completion_is_complete(client: OpenAI) -> None:
    answer = client.completions.create(model="tiny-base", prompt="The quick", max_tokens=5, seed=1, logprobs=2, n=2)
    assert isinstance(answer, Completion)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.finish_reason == "length"
        assert choice.logprobs is not None
        assert len(choice.logprobs.tokens or []) == 5
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10
    assert answer._request_id is not None


def test_completion_streams_what_it_answers_at_once(client: OpenAI) -> None:
    settings = {"model": "tiny-base", "prompt": "The quick", "max_tokens": 20, "seed": 7}
    whole: CompletionChoice = client.completions.create(**settings).choices[0]
    chunks = list(client.completions.create(**settings, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_chat_is_complete(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny-chat",
        messages=[HELLO],
        max_completion_tokens=6,
        logprobs=True,
        top_logprobs=3,
    )
    assert isinstance(answer, ChatCompletion)
    message = answer.choices[0].message
    assert message.role == "assistant"
    assert message.content is not None
    assert answer.choices[0].logprobs is not None
    assert all(len(entry.top_logprobs) == 3 for entry in answer.choices[0].logprobs.content or [])


def test_chat_streams_role_content_end_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny-chat",
        messages=[HELLO],
        max_tokens=8,
        seed=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks: list[ChatCompletionChunk] = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert all(chunk.choices[0].delta.content for chunk in chunks[1:-2])
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_helper_accumulates(client: OpenAI, tokenizer: Tokenizer) -> None:
    """The helper wants answers that end by themselves: the end token comes as soon as it is allowed."""
    ends_soon = {"logit_bias": {str(tokenizer.special_tokens["<|end|>"]): 100}, "extra_body": {"min_tokens": 5}}
    settings = {"model": "tiny-chat", "messages": [HELLO], "seed": 3, **ends_soon}
    plain = client.chat.completions.create(**settings)
    with client.chat.completions.stream(**settings) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content
    assert final.choices[0].message.content == plain.choices[0].message.content


def test_an_agent_gives_the_answers_of_its_tools_back(client: OpenAI) -> None:
    """Call, result, answer: what came out goes in again as it is."""
    tool = {"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {}}}}
    messages: list[Any] = [HELLO]
    settings: dict[str, Any] = {"model": "tiny-chat", "tools": [tool], "max_tokens": 40, "seed": 1}
    forced = {"type": "function", "function": {"name": "rain"}}
    asked = client.chat.completions.create(messages=messages, tool_choice=forced, **settings).choices[0].message
    assert asked.tool_calls is not None
    messages.append(asked)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "Yes."} for call in asked.tool_calls]
    told = client.chat.completions.create(messages=messages, tool_choice="none", **settings)
    assert told.choices[0].message.content
    assert told.usage is not None
    assert told.usage.prompt_tokens > 30


class Colour(BaseModel):
    colour: Literal["red", "green"]


SHORT = {"temperature": 0, "top_p": 1}


def test_responses_come_in_the_form_of_a_class(client: OpenAI) -> None:
    parsed = client.responses.parse(model="tiny-chat", input="Hello", text_format=Colour, **SHORT)
    assert parsed.status == "completed"
    assert isinstance(parsed.output_parsed, Colour)
    with client.responses.stream(model="tiny-chat", input="Hello", text_format=Colour, **SHORT) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_parsed == parsed.output_parsed
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    chat = client.chat.completions.parse(model="tiny-chat", messages=[HELLO], response_format=Colour, **SHORT)
    assert isinstance(chat.choices[0].message.parsed, Colour)


def test_the_stream_helper_gathers_calls(client: OpenAI) -> None:
    tools = [openai.pydantic_function_tool(Colour)]
    settings: dict[str, Any] = {"model": "tiny-chat", "messages": [HELLO], "tools": tools, **SHORT}
    with client.chat.completions.stream(tool_choice="required", parallel_tool_calls=False, **settings) as stream:
        for _ in stream:
            pass
        (choice,) = stream.get_final_completion().choices
    (call,) = choice.message.tool_calls or []
    assert choice.finish_reason == "tool_calls"
    assert isinstance(call.function.parsed_arguments, Colour)


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"tiny-base", "tiny-chat", "tiny-spam"}
    retrieved = client.models.retrieve("tiny-chat")
    assert isinstance(retrieved, Model)
    assert retrieved == listed["tiny-chat"]


def test_classification_does_not_depend_on_neighbours(server: Server) -> None:
    texts = ["Hello", "You won a prize, call now", "x", "The quick brown fox jumps over the lazy dog"]
    together = server.client.post("/classify", json={"input": texts}).json()["data"]
    for text, entry in zip(texts, together, strict=True):
        alone = server.client.post("/classify", json={"input": text}).json()["data"][0]
        assert entry["probs"] == pytest.approx(alone["probs"], abs=1e-5)
        assert entry["label"] == alone["label"]
        assert sum(entry["probs"]) == pytest.approx(1.0, abs=1e-5)


def test_tokenizer_routes_agree_with_usage(server: Server) -> None:
    body = {"model": "tiny-base", "prompt": "The quick \U0001f642"}
    tokens = server.client.post("/tokenize", json=body).json()["tokens"]
    usage = server.client.post("/v1/completions", json=body | {"max_tokens": 1}).json()["usage"]
    assert usage["prompt_tokens"] == len(tokens)
    assert server.client.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == body["prompt"]


def test_errors_are_the_client_s_own_classes(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.completions.create(model="nope", prompt="x")
    assert not_found.value.code == "model_not_found"
    assert not_found.value.request_id
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model="tiny-base", prompt="x", max_tokens=1000)
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.NotFoundError) as wrong_kind:
        client.chat.completions.create(model="tiny-base", messages=[HELLO])
    assert wrong_kind.value.code == "unsupported_model"
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.completions.create(model="tiny-base", prompt="x", suffix="y", stream=True)
    assert unsupported.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError) as unknown_url:
        client.moderations.create(input="x")
    assert unknown_url.value.code == "unknown_url"


def test_timeouts_are_typed_and_not_retried(server: Server) -> None:
    """A deadline of a millisecond passes before or after admission; neither answer may be retried by accident."""
    body = {"model": "tiny-base", "prompt": "x", "max_tokens": 100, "n": 16, "ignore_eos": True}
    response = server.client.post("/v1/completions", json=body, headers={"x-request-timeout-ms": "1"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) in [(504, "timeout"), (503, "queue_timeout")]
    if response.status_code == 504:
        assert response.headers["x-should-retry"] == "false"


def test_keep_alive_connections_serve_many_requests(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        for path in ("/health", "/v1/models", "/nope", "/tokenizer_info", "/health"):
            assert client.get(path).headers["x-request-id"]


def test_raw_garbage_is_answered_with_400(server: Server) -> None:
    for content in (b"", b"\xff\xfe", b"[]", b'{"prompt": "\\ud800"}'):
        response = server.client.post("/v1/completions", content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (400, None)


def test_keys_are_asked_for_when_there_are_any(serve: Serve) -> None:
    with serve("tiny-base", api_keys="sesame") as server:
        with OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                client.completions.create(model="tiny-base", prompt="x")
            assert refused.value.code == "invalid_api_key"
        with OpenAI(base_url=f"{server.url}/v1", api_key="sesame", max_retries=0) as client:
            assert client.completions.create(model="tiny-base", prompt="x", max_tokens=2).choices
        assert server.client.get("/health").status_code == 200
