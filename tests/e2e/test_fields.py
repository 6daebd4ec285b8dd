"""Every field of every request body on a real server: a value it takes, and what that changes; and that nobody could
overlook it. The values that are refused are in tests/service/web/test_error_catalogue.py.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import save_checkpoint
from model.classifier import GPTClassifier
from model.tokenizer import Tokenizer
from tests.e2e.conftest import Server, start_server
from tests.e2e.field_cases import ENDPOINTS, generated, text_of
from tests.tiny import make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, LLAMA2_TEMPLATE, llama2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tiny_checkpoints: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The three checkpoints of other tests, and two that differ in what fields of requests can reach."""
    folder = tmp_path_factory.mktemp("fields")
    other = Tokenizer(llama2(), LLAMA2_CONFIG)
    model = make_gpt(make_config("llama", vocab_size=other.vocab_size))
    template = LLAMA2_TEMPLATE + "{{ mood }}"
    save_checkpoint(folder / "tiny-other", model, other, model_card="# Random\n", chat_template=template)
    torch.manual_seed(3)
    classifier = GPTClassifier(make_config("llama"), num_labels=2)
    save_checkpoint(folder / "tiny-topics", classifier, tokenizer, model_card="# Random\n", labels=["sea", "land"])
    paths = [str(path) for path in (*sorted(tiny_checkpoints.iterdir()), *sorted(folder.iterdir()))]
    with start_server(folder, tmp_path_factory.mktemp("log") / "server.log", *paths) as running:
        yield running


@pytest.fixture(scope="module")
def described(server: Server) -> Any:
    return server.client.get("/openapi.json").json()["paths"]


def refused_fields(described: Any, path: str) -> dict[str, list[Any]]:
    """Fields that exist to be refused, each with the values that are not."""
    schema = described[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return {name: field["enum"] for name, field in schema["properties"].items() if None in field.get("enum", [])}


def ask(server: Server, path: str, body: Mapping[str, Any]) -> Any:
    """Return the answer: an object, or the list of a stream's events."""
    response = server.client.post(path, json=body)
    assert response.status_code == 200, (body, response.text)
    assert "x-ignored-params" not in response.headers, body
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in response.text.splitlines()]
        return [json.loads(line) for line in lines if line.startswith("{")]
    return response.json()


def is_seen(server: Server, path: str, name: str, *, is_sent: bool = True) -> bool:
    """Try a field; or leave it out, so that what a server answers is what it would say if it ignored the field."""
    _, base, cases = ENDPOINTS[path]
    changes, seen, *rest = cases[name]

    def without(body: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in body.items() if is_sent or key != name}

    plain_body = base | without(rest[0] if rest else {})
    ask(server, path, plain_body)
    plain = ask(server, path, plain_body)  # whose prompt is in the cache
    body = plain_body | without(changes(plain) if callable(changes) else changes)
    return bool(seen(ask(server, path, body), plain))


@pytest.mark.parametrize("path", ENDPOINTS)
def test_each_field_does_what_it_should(server: Server, path: str) -> None:
    _, _, cases = ENDPOINTS[path]
    assert [name for name in cases if not is_seen(server, path, name)] == []


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_server_that_ignored_a_field_would_be_found_out(server: Server, path: str) -> None:
    _, _, cases = ENDPOINTS[path]
    overlooked = []
    for name in cases:
        with suppress(AssertionError, LookupError, TypeError, ValueError):  # another kind of answer, or none
            overlooked += [name] if is_seen(server, path, name, is_sent=False) else []
    assert overlooked == []


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
def test_null_is_an_omitted_field(server: Server, path: str) -> None:
    body_type, base, _ = ENDPOINTS[path]
    optional = {name for name, field in body_type.model_fields.items() if not field.is_required()}
    ask(server, path, dict.fromkeys(optional | body_type.without_effect) | base)


def test_with_several_classifiers_one_must_be_named(server: Server) -> None:
    error = server.client.post("/classify", json={"input": "x"}).json()["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


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
