"""POST /v1/embeddings in front of a scripted worker."""

import base64
import struct
from typing import Any

import pytest

from service.host.messages import Embedded
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service, embeds

PATH = "/v1/embeddings"


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    return make_service(generate=embeds(3.0, 4.0, 12.0))


def embed(service: Service, **body: Any) -> dict[str, Any]:
    response = service.post(PATH, {"model": "tiny-base", "input": "Hello"} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_answer_has_the_whole_object(service: Service) -> None:
    num_tokens = len(service.models.get("tiny-base").tokenizer.encode("Hello"))
    assert embed(service) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": pytest.approx([3 / 13, 4 / 13, 12 / 13])}],
        "model": "tiny-base",
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"normalize": False}, [3.0, 4.0, 12.0]),
        ({"dimensions": 2}, [0.6, 0.8]),
        ({"dimensions": 2.0, "normalize": False}, [3.0, 4.0]),
        ({"encoding_format": "float", "user": "me"}, [3 / 13, 4 / 13, 12 / 13]),
    ],
)
def test_vectors_are_cut_and_scaled_as_asked(service: Service, changes: dict[str, Any], expected: list[float]) -> None:
    assert embed(service, **changes)["data"][0]["embedding"] == pytest.approx(expected)


def test_base64_is_little_endian_float32(service: Service) -> None:
    text = embed(service, encoding_format="base64", normalize=False)["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(text)) == (3.0, 4.0, 12.0)


def test_a_vector_of_zeros_stays_one(make_service: ServiceMaker) -> None:
    assert embed(make_service(generate=embeds(0.0, 0.0)))["data"][0]["embedding"] == [0.0, 0.0]


def test_pooling_reaches_the_worker(service: Service) -> None:
    embed(service)
    embed(service, model="tiny-chat", pooling="last")
    assert [(request.model, request.pooling) for request in service.generate.requests] == [
        ("tiny-base", "mean"),
        ("tiny-chat", "last"),
    ]


def test_answers_are_in_the_order_of_the_items_however_many(make_service: ServiceMaker) -> None:
    service = make_service(
        generate=lambda message: [Embedded(message.uid, [float(message.prompt_ids[0]), 1.0])], max_waiting_requests=100
    )
    items = [[i % 384, 7] for i in range(300)]
    answer = embed(service, input=items, normalize=False)
    assert [entry["embedding"][0] for entry in answer["data"]] == [float(i % 384) for i in range(300)]
    assert [entry["index"] for entry in answer["data"]] == list(range(300))
    assert answer["usage"] == {"prompt_tokens": 600, "total_tokens": 600}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"truncate_prompt_tokens": 2}, [7, 8]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "left"}, [8, 8]),
        ({"truncate_prompt_tokens": -1}, [7] + [8] * 127),
    ],
)
def test_items_are_truncated_on_request_only(service: Service, changes: dict[str, Any], expected: list[int]) -> None:
    embed(service, input=[7] + [8] * 150, **changes)
    assert service.generate.requests[0].prompt_ids == expected
