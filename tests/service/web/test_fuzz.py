"""Whatever JSON a client sends: an answer or a typed refusal, never a fault of ours."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from service.host.messages import Admitted, Embed, Embedded, Event, Generate
from service.web.protocol.chat import ChatRequest
from service.web.protocol.classify import ClassifyRequest
from service.web.protocol.completions import CompletionRequest
from service.web.protocol.tokens import DetokenizeRequest, TokenizeRequest
from service.web.routes import ALIASES
from tests.mutations import admin_seeds, bodies, check, seeds
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, writes

numbers = st.one_of(
    st.integers(-3, 200), st.integers(-(10**300), 10**300), st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.one_of(
    st.text(max_size=8), st.sampled_from(["text", "user", "assistant", "left", "auto", "<|end|>", "json_object"])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
names = st.one_of(texts, st.sampled_from(["role", "content", "type", "text", "include_usage", "self", "1"]))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(names, inner, max_size=4)),
    max_leaves=8,
)

ENDPOINTS = {
    "/v1/completions": (CompletionRequest, {"model": "tiny-base", "prompt": "Hello"}),
    "/v1/chat/completions": (
        ChatRequest,
        {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "/classify": (ClassifyRequest, {"model": "tiny-spam", "input": "Hello"}),
    "/tokenize": (TokenizeRequest, {"model": "tiny-chat"}),
    "/detokenize": (DetokenizeRequest, {"model": "tiny-chat"}),
}


@pytest.mark.parametrize("path", ENDPOINTS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_gets_an_answer_or_a_typed_refusal(make_service: ServiceMaker, path: str, data: st.DataObject) -> None:
    body_type, valid = ENDPOINTS[path]
    fields = data.draw(st.dictionaries(st.sampled_from(sorted(body_type.model_fields)), values, max_size=4))
    body: dict[str, Any] = {**valid, **fields} if data.draw(st.integers(0, 3)) else fields
    response = make_service(max_logprobs=20).post(path, body)
    if response.status_code == 200:
        return
    assert response.status_code in (400, 404), (body, response.text)
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] is not None
    assert error["param"]
    assert error["param"].split(".")[0].split("[")[0] in {*body_type.model_fields, "messages"}


def works(message: Generate | Embed) -> Iterable[Event]:
    """Script: write one token, or embed everything alike."""
    if isinstance(message, Embed):
        return [Admitted(message.uid, 0.0, 0), Embedded(message.uid, [1.0] * 32)]
    return writes([40])(message)


NUM_MUTATIONS = int(os.environ.get("GROUNDUP_MUTATIONS", "5000"))
"""By hand: GROUNDUP_MUTATIONS=50000."""

BATCH = 250
KEY = "the-admin-key"


def try_all(service: Service, todo: list[tuple[str, bytes]], **headers: str) -> None:
    async def send(client: httpx.AsyncClient) -> None:
        for path, body in batch:
            response = await client.post(path, content=body, headers={"Content-Type": "application/json", **headers})
            try:
                check(response.status_code, response.headers["content-type"], response.content)
            except AssertionError as error:
                raise AssertionError(f"{path} {body[:2000]!r}: {error}") from None

    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        service.run(send)


def test_mutated_bodies_get_an_answer_or_a_typed_refusal(make_service: ServiceMaker) -> None:
    service = make_service(generate=works, max_logprobs=20)
    try_all(service, list(bodies(seeds("tiny-base", "tiny-chat", "tiny-spam"), NUM_MUTATIONS)))
    assert service.post("/v1/completions", {"model": "tiny-base", "prompt": "x"}).status_code == 200


def test_mutated_bodies_of_operators_do_too(make_service: ServiceMaker, checkpoint_paths: tuple[Path, ...]) -> None:
    service = make_service(generate=works, admin_key=KEY)
    valid = admin_seeds(str(checkpoint_paths[0]))
    for path, all_valid in valid.items():
        for body in all_valid:
            assert service.post(path, body, headers={"X-Api-Key": KEY}).status_code == 200
    try_all(service, list(bodies(valid, NUM_MUTATIONS // 10)), **{"X-Api-Key": KEY})
    assert service.post("/v1/completions", {"model": "tiny-base", "prompt": "x"}).status_code == 200


@pytest.mark.parametrize("path", seeds("", "", ""))
def test_what_is_mutated_was_valid(make_service: ServiceMaker, path: str) -> None:
    for body in seeds("tiny-base", "tiny-chat", "tiny-spam")[path]:
        response = make_service(generate=works, max_logprobs=20).post(path, body)
        assert response.status_code == 200, response.text


def test_every_post_route_is_mutated(make_service: ServiceMaker) -> None:
    routes = [
        route
        for route in make_service(admin_key=KEY).app.routes
        if isinstance(route, Route) and "POST" in (route.methods or ())
    ]
    assert {ALIASES.get(route.path, route.path) for route in routes} == {*seeds("", "", ""), *admin_seeds("")}
