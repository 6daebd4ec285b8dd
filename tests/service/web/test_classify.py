"""POST /classify in front of a scripted worker."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from service.host.messages import Classified, Failed
from service.settings import ServiceSettings
from service.web.catalog import load_models
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import ScriptedWorker, Service, scores, writes

PATH = "/classify"


def classify(service: Service, *, path: str = PATH, **body: Any) -> dict[str, Any]:
    response = service.post(path, body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_answer_has_the_whole_object(make_service: ServiceMaker) -> None:
    service = make_service(classify=scores(0.0, math.log(3)))
    answer = classify(service, input="You won")
    assert answer["id"].startswith("classify-")
    assert (answer["object"], answer["model"], answer["labels"]) == ("list", "tiny-spam", ["ham", "spam"])
    entry = answer["data"][0]
    assert entry["probs"] == pytest.approx([0.25, 0.75])
    assert (entry["object"], entry["index"], entry["num_classes"]) == ("classification", 0, 2)
    assert (entry["label"], entry["label_index"], entry["score"]) == ("spam", 1, entry["probs"][1])
    assert entry["scores"] == [
        {"label": "spam", "label_index": 1, "score": entry["probs"][1]},
        {"label": "ham", "label_index": 0, "score": entry["probs"][0]},
    ]
    assert "logits" not in entry
    num_tokens = len(service.models.get("tiny-spam").tokenizer.encode("You won"))
    assert answer["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens, "completion_tokens": 0}


@pytest.mark.parametrize("field", ["input", "inputs"])
@pytest.mark.parametrize("path", ["/classify", "/v1/classify", "/classify/"])
def test_both_paths_and_both_spellings_are_one_endpoint(service: Service, path: str, field: str) -> None:
    assert classify(service, path=path, **{field: "x"})["data"][0]["label"] == "ham"


def test_the_only_classifier_needs_no_name(service: Service) -> None:
    assert classify(service, input="x")["model"] == "tiny-spam"


def test_answers_are_in_the_order_of_the_items(make_service: ServiceMaker) -> None:
    service = make_service(classify=lambda message: [Classified(message.uid, [float(message.prompt_ids[0]), 0.0])])
    answer = classify(service, input=[[3, 4], [1], [2]], raw_scores=True)
    assert [entry["logits"][0] for entry in answer["data"]] == [3.0, 1.0, 2.0]
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]


def test_a_tie_goes_to_the_lowest_index(make_service: ServiceMaker) -> None:
    entry = classify(make_service(classify=scores(1.0, 1.0)), input="x")["data"][0]
    assert entry["label_index"] == 0
    assert [score["label_index"] for score in entry["scores"]] == [0, 1]


@pytest.mark.parametrize("raw", [{"raw_scores": True}, {"use_activation": False}])
def test_raw_scores_are_logits_beside_probabilities(make_service: ServiceMaker, raw: dict[str, bool]) -> None:
    entry = classify(make_service(classify=scores(-2.0, 5.0)), input="x", **raw)["data"][0]
    assert entry["score"] == 5.0
    assert entry["logits"] == [-2.0, 5.0]
    assert sum(entry["probs"]) == pytest.approx(1.0)


def test_top_k_shortens_the_list_of_scores_only(service: Service) -> None:
    entry = classify(service, input="x", top_k=1)["data"][0]
    assert len(entry["scores"]) == 1
    assert len(entry["probs"]) == 2


def test_large_logits_do_not_overflow(make_service: ServiceMaker) -> None:
    assert classify(make_service(classify=scores(1e4, -1e4)), input="x")["data"][0]["probs"] == [1.0, 0.0]


def test_text_of_control_tokens_stays_text(service: Service, models: Any) -> None:
    classify(service, input="<|endoftext|>")
    special = service.models.get("tiny-spam").tokenizer.special_ids
    assert not special & set(service.classify.requests[0].prompt_ids)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"truncate": True}, [7] + [8] * 127),
        ({"truncate": True, "truncation_side": "left"}, [8] * 127 + [9]),
        ({"truncate_prompt_tokens": 2}, [7, 8]),
        ({"truncate_prompt_tokens": -1}, [7] + [8] * 127),
    ],
)
def test_items_are_truncated_on_request_only(service: Service, changes: dict[str, Any], expected: list[int]) -> None:
    classify(service, input=[[7] + [8] * 200 + [9]], **changes)
    assert service.classify.requests[0].prompt_ids == expected


def test_the_wait_for_a_batch_is_bounded_like_every_queue(make_service: ServiceMaker) -> None:
    service = make_service(queue_timeout_s=50, request_timeout_s=100)
    for header in ({}, {"x-request-timeout-ms": "2000"}):
        before_s = time.monotonic()
        service.request("POST", PATH, json={"input": "x"}, headers=header)
        bound_s = 2 if header else 50
        assert before_s + bound_s <= service.classify.requests[-1].deadline_s <= time.monotonic() + bound_s


def test_one_failure_fails_the_request_and_cancels_the_rest(make_service: ServiceMaker) -> None:
    service = make_service(
        classify=lambda message: [Failed(message.uid, "timeout")] if message.prompt_ids == [2] else []
    )
    response = service.post(PATH, {"input": [[1], [2], [3]]})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert len(service.classify.cancelled) == 2


def test_texts_are_truncated_as_the_model_was_trained(tiny_checkpoints: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_checkpoints / "tiny-spam", tmp_path / "tiny-spam")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps({**config, "model_max_length": 3, "truncation_side": "left"})
    )
    settings = ServiceSettings(checkpoints=(path,))
    service = Service(
        load_models(settings), settings, ScriptedWorker(writes([])), ScriptedWorker(scores(1.0, 0.0)), True
    )
    for changes in ({"truncate": True}, {"truncate": True, "truncation_side": "right"}, {}):
        classify(service, input=[1, 2, 3, 4, 5], **changes)
    assert [request.prompt_ids for request in service.classify.requests] == [[3, 4, 5], [1, 2, 3], [1, 2, 3, 4, 5]]


def test_bare_lists_are_answered_as_text_embeddings_inference_does(make_service: ServiceMaker) -> None:
    service = make_service(classify=scores(0.0, math.log(3)))
    ham, spam = {"score": pytest.approx(0.25), "label": "ham"}, {"score": pytest.approx(0.75), "label": "spam"}
    for inputs, expected in (("x", [spam, ham]), (["x"], [[spam, ham]]), ([["x"], ["y"]], [[spam, ham], [spam, ham]])):
        assert service.post("/predict", {"inputs": inputs}).json() == expected
    raw = service.post("/predict", {"inputs": "x" * 500, "raw_scores": True, "truncate": True}).json()
    assert [entry["score"] for entry in raw] == [pytest.approx(math.log(3)), 0.0]
    service.post("/predict", {"inputs": "ab" * 500, "truncate": True, "truncation_direction": "Left"})
    assert len(service.classify.requests[-1].prompt_ids) == 128


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"inputs": 7}, "invalid_type", "inputs"),
        ({"inputs": []}, "empty_array", "inputs"),
        ({"inputs": [["a", "b"]]}, "invalid_type", "inputs[0]"),
        ({"inputs": ""}, "invalid_value", "inputs"),
        ({"inputs": None}, "missing_required_parameter", "inputs"),
        ({"inputs": "a", "truncation_direction": "Up"}, "invalid_value", "truncation_direction"),
        ({"inputs": "x" * 500}, "context_length_exceeded", "input"),
    ],
)
def test_what_is_wrong_with_a_bare_request_is_named(
    service: Service, changes: dict[str, Any], code: str, param: str
) -> None:
    response = service.post("/predict", changes)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)


@pytest.fixture
def tagging(tiny_checkpoints: Path, tmp_path: Path) -> Service:
    """Labels that do not exclude each other; the first is likely, the second is not."""
    path = shutil.copytree(tiny_checkpoints / "tiny-spam", tmp_path / "tiny-tags")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    settings = ServiceSettings(checkpoints=(path,))
    return Service(load_models(settings), settings, ScriptedWorker(writes([])), ScriptedWorker(scores(3.0, -1.0)), True)


def test_labels_that_do_not_exclude_each_other_have_each_its_own_probability(tagging: Service) -> None:
    entry = classify(tagging, input="x")["data"][0]
    assert entry["probs"] == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(1))])
    assert (entry["label"], entry["score"]) == ("ham", entry["probs"][0])
    assert [score["label"] for score in entry["scores"]] == ["ham", "spam"]
    assert entry["predicted_labels"] == ["ham"]
    raw = classify(tagging, input="x", raw_scores=True, top_k=1)["data"][0]
    assert (raw["score"], raw["logits"], raw["predicted_labels"]) == (3.0, [3.0, -1.0], ["ham"])


def test_none_or_all_of_such_labels_may_apply(tagging: Service) -> None:
    for logits, expected in (((-2.0, -3.0), []), ((0.0, 1e4), ["ham", "spam"])):
        tagging.classify.script = scores(*logits)
        entry = classify(tagging, input="x")["data"][0]
        assert entry["predicted_labels"] == expected
        assert "predicted_labels" not in entry["scores"][0]


def test_a_model_says_whether_its_labels_exclude_each_other(tagging: Service, service: Service) -> None:
    (card,) = tagging.get("/v1/models").json()["data"]
    assert card["problem_type"] == "multi_label_classification"
    found = {card["id"]: card.get("problem_type") for card in service.get("/v1/models").json()["data"]}
    assert found == {"tiny-base": None, "tiny-chat": None, "tiny-spam": "single_label_classification"}
    assert "predicted_labels" not in classify(service, input="x")["data"][0]
