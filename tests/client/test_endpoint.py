"""Servers of all manners: what they list, what they stream, and how they fail, each failure in one line."""

import json

import pytest

from client.endpoint import Endpoint, EndpointError
from tests.client.stub_server import DONE, Answer, cards, chunk, says, stub_server

HELLO = [{"role": "user", "content": "Hello"}]


def ask(url: str, **sampling: object) -> str:
    endpoint = Endpoint(url, api_key=None, timeout_s=20)
    return "".join(piece.text for piece in endpoint.answer("a", HELLO, sampling))


def complaint(answer: Answer) -> str:
    with stub_server(cards("a"), lambda _: answer) as server, pytest.raises(EndpointError) as caught:
        ask(server.url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_is_joined_from_its_pieces_and_only_what_was_chosen_is_sent() -> None:
    with stub_server(cards("a"), lambda _: says("", "He", "llo", "\U0001f642")) as server:
        endpoint = Endpoint(server.url + "/", api_key=" sesame\n", timeout_s=20)
        pieces = list(endpoint.answer("a", HELLO, {"temperature": 0}))
        assert "".join(piece.text for piece in pieces) == "Hello\U0001f642"
        assert pieces[-1].finish_reason == "stop"
        assert server.bodies == [{"model": "a", "messages": HELLO, "stream": True, "temperature": 0}]
        assert server.keys == ["Bearer sesame"]


def test_models_that_do_not_chat_are_not_offered_and_silent_ones_are() -> None:
    listed = cards({"id": "a", "capabilities": ["completions"]}, {"id": "b", "capabilities": ["chat"]}, "c")
    with stub_server(listed, lambda _: says()) as server:
        assert Endpoint(server.url, api_key=None, timeout_s=20).chat_models() == ["b", "c"]
        assert server.keys == [None]


def test_what_other_servers_call_capabilities_hides_no_model() -> None:
    named = {"completion_chat": True, "vision": False}
    listed = cards(
        {"id": "a", "capabilities": None}, {"id": "b", "capabilities": named}, {"id": "c", "capabilities": []}
    )
    with stub_server(listed, lambda _: says()) as server:
        assert Endpoint(server.url, api_key=None, timeout_s=20).chat_models() == ["a", "b"]


@pytest.mark.parametrize("choice", [None, "Hi", {"delta": "Hi"}, {"delta": {"content": [{"text": "Hi"}]}}])
def test_what_is_no_answer_is_told_in_a_line(choice: object) -> None:
    event = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    assert "streams something that is no answer" in complaint(Answer([event, DONE]))


def test_events_without_space_unknown_fields_and_empty_choices_are_understood() -> None:
    odd = [b"event: message\n", b'data:{"choices":[{"delta":{"content":"Hi"}}]}\r\n\r\n', b'data: {"choices":[]}\n\n']
    with stub_server(cards("a"), lambda _: Answer([*odd, chunk(None, "stop"), DONE])) as server:
        assert ask(server.url) == "Hi"


def test_an_end_without_done_is_an_end_if_a_reason_was_given() -> None:
    with stub_server(cards("a"), lambda _: Answer([chunk("Hi", "length")])) as server:
        assert ask(server.url) == "Hi"
    assert "broke off" in complaint(Answer([chunk("Hi")]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "too\nlong", "code": "context_length_exceeded"}}, "too long"),
        ({"error": "simply no"}, "simply no"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"object": "error", "message": "flat"}, "flat"),
        ([], "/v1/chat/completions: 400 Bad Request"),
        ({"error": {"message": "x" * 10_000}}, "x" * 500),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(body: object, message: str) -> None:
    assert complaint(Answer([json.dumps(body).encode()], status=400)).endswith(message)


def test_an_error_inside_a_stream_ends_it() -> None:
    error = b'data: {"error": {"message": "The engine died."}}\n\n'
    assert complaint(Answer([chunk("Hi"), error, DONE])) == "The engine died."


def test_what_is_no_such_server_is_named() -> None:
    assert "not a JSON object" in complaint(Answer([b"data: <html>\n\n"]))
    with stub_server(Answer([b'{"models": []}']), lambda _: says()) as server:
        endpoint = Endpoint(server.url, api_key=None, timeout_s=20)
        with pytest.raises(EndpointError, match="no list of models"):
            endpoint.chat_models()
    with pytest.raises(EndpointError, match=r"^--base-url: cannot reach .* refused; does the server run\?$"):
        endpoint.chat_models()
    for url in ("localhost:8000/v1", "http://", "nonsense"):
        with pytest.raises(EndpointError, match=r"^--base-url: "):
            Endpoint(url, api_key=None, timeout_s=1).chat_models()


def test_closing_an_answer_closes_the_connection() -> None:
    with stub_server(cards("a"), lambda _: Answer(chunk("word ") for _ in range(1_000_000))) as server:
        answer = Endpoint(server.url, api_key=None, timeout_s=20).answer("a", HELLO, {})
        assert next(answer).text == "word "
        answer.close()
        assert server.was_left.wait(20)


def test_silence_is_given_up() -> None:
    def silent() -> "list[bytes]":
        server.was_left.wait(1)
        return []

    with stub_server(cards("a"), lambda _: Answer(silent())) as server:
        endpoint = Endpoint(server.url, api_key=None, timeout_s=0.1)
        with pytest.raises(EndpointError, match=r"no answer for 0\.1 s"):
            list(endpoint.answer("a", HELLO, {}))


def test_half_a_character_is_replaced() -> None:
    lone = b'data: {"choices":[{"delta":{"content":"a\\ud800"},"finish_reason":"stop"}]}\n\n'
    with stub_server(cards("a"), lambda _: Answer([lone, DONE])) as server:
        assert ask(server.url) == "a?"
