"""Limits per key and minute, what clients are told about them, and keys that may not do everything."""

from typing import Any

import pytest

from service.settings import ServiceSettings
from service.web.errors import RateLimited
from service.web.quotas import Quota, duration
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, embeds

BASE: dict[str, Any] = {"model": "tiny-base", "prompt": [1, 2, 3], "max_tokens": 5}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_minutes_worth_comes_back_steadily() -> None:
    clock = Clock()
    quota = Quota(2, 100, clock)
    quota.begin_request()
    quota.begin_request()
    with pytest.raises(RateLimited) as caught:
        quota.begin_request()
    assert (caught.value.type, caught.value.headers["Retry-After"]) == ("requests", "30")
    clock.now_s = 30.0
    quota.begin_request()


def test_tokens_are_set_aside_and_settled_by_what_was_used() -> None:
    clock = Clock()
    quota = Quota(None, 100, clock)
    quota.reserve_tokens(90)
    with pytest.raises(RateLimited) as caught:
        quota.reserve_tokens(40)
    assert (caught.value.type, caught.value.headers["retry-after-ms"]) == ("tokens", "18000")
    quota.settle_tokens(90, 10)
    assert quota.headers()["x-ratelimit-remaining-tokens"] == "90"
    quota.settle_tokens(0, 150)
    assert quota.headers() == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m36s",
    }


def test_what_never_fits_is_not_to_be_tried_again() -> None:
    with pytest.raises(RateLimited, match="Reduce the request") as caught:
        Quota(None, 100).reserve_tokens(101)
    assert caught.value.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (59, "59s"), (360, "6m0s")]
)
def test_times_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    keys = ["alice:a", "bob:b", "carol:c"]
    limits = {"bob": {"requests_per_minute": 1}, "carol": {"models": ["tiny-chat"], "tokens_per_minute": 20}}
    return make_service(api_keys=keys, requests_per_minute=100, key_limits=limits)


def post(service: Service, key: str, **changes: Any) -> Any:
    return service.post("/v1/completions", BASE | changes, headers={"authorization": f"Bearer {key}"})


def test_each_answer_tells_what_its_key_has_left(service: Service) -> None:
    headers = post(service, "a").headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("100", "99")
    assert headers["x-ratelimit-reset-requests"].endswith("ms")
    assert "x-ratelimit-limit-tokens" not in headers
    assert post(service, "b").headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-limit-requests" not in service.get("/health").headers


def test_too_many_requests_are_429_and_say_when_to_come_back(service: Service) -> None:
    assert post(service, "b").status_code == 200
    refused = post(service, "b", prompt=7)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"], error["param"]) == (
        *(429, "requests", "rate_limit_exceeded", None),
    )
    assert 58 <= int(refused.headers["retry-after"]) <= 60
    assert int(refused.headers["retry-after-ms"]) <= 60_000
    assert post(service, "a").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_tokens_are_429_before_anything_is_generated(service: Service, stream: bool) -> None:
    refused = post(service, "c", model="tiny-chat", max_tokens=18, stream=stream)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "tokens", "rate_limit_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert service.generate.sent == []
    assert post(service, "c", model="tiny-chat", stream=stream).status_code == 200
    used = 3 + len(service.models.get("tiny-chat").tokenizer.encode("Hi!"))
    left = int(post(service, "c", model="nope").headers["x-ratelimit-remaining-tokens"])
    assert 20 - used <= left <= 20 - used + 2


def test_texts_to_read_count_as_tokens(make_service: ServiceMaker) -> None:
    service = make_service(generate=embeds(1.0), tokens_per_minute=10)
    answer = service.post("/v1/embeddings", {"model": "tiny-base", "input": [[1, 2, 3], [4, 5]]})
    assert answer.headers["x-ratelimit-remaining-tokens"] == "5"
    assert service.post("/classify", {"input": [1] * 6}).status_code == 429


def test_a_key_may_be_kept_from_models(service: Service) -> None:
    key = {"authorization": "Bearer c"}
    refused, unknown = post(service, "c").json()["error"], post(service, "c", model="nope").json()["error"]
    assert (refused["code"], refused["param"]) == ("model_not_found", "model")
    assert refused["message"].replace("tiny-base", "nope") == unknown["message"]
    for name, status in (("tiny-base", 404), ("tiny-chat", 200)):
        for path in ("/tokenizer_info?model=", "/v1/models/"):
            assert service.get(path + name, headers=key).status_code == status
    assert [card["id"] for card in service.get("/v1/models", headers=key).json()["data"]] == ["tiny-chat"]
    documents = [service.get("/openapi.json", headers={"x-api-key": name}).text for name in ("c", "a", "c")]
    assert ["tiny-base" in document for document in documents] == [False, True, False]
    refusals = [
        service.post("/classify", {"input": "x"} | named, headers=key) for named in ({}, {"model": "tiny-spam"})
    ]
    assert [answer.json()["error"]["code"] for answer in refusals] == ["missing_required_parameter", "model_not_found"]


def test_an_ordinary_key_opens_no_admin_route(make_service: ServiceMaker) -> None:
    service = make_service(api_keys=["alice:a"], admin_key="root")
    answers = [service.get("/admin/models", headers={"x-api-key": key}) for key in ("a", "x", "root")]
    assert [answer.status_code for answer in answers] == [403, 401, 200]
    assert answers[0].json()["error"]["code"] == "insufficient_permissions"


def test_limits_of_an_unknown_key_are_refused_at_the_start(checkpoint_paths: Any) -> None:
    with pytest.raises(ValueError, match="no API key is named 'dave'"):
        ServiceSettings(checkpoints=checkpoint_paths, key_limits={"dave": {"tokens_per_minute": 1}})
