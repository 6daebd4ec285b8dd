"""More answers than are shown, words that must not come, and the prompt's own scores, in front of a scripted worker."""

from collections.abc import Iterable
from typing import Any

import pytest

from model.tokenizer import Tokenizer
from service.host.messages import Admitted, Event, Generate, Token, TokenLogprob
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service

PATH = "/v1/completions"
BASE: dict[str, Any] = {"model": "tiny-base", "prompt": "Hello"}
TALK: dict[str, Any] = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]}


def one_letter_each(tokenizer: Tokenizer, logprobs: dict[str, list[float]]) -> Any:
    """Script: choice j writes the j-th letter, once for each of its log-probabilities."""
    letters = list(logprobs)

    def script(message: Generate) -> Iterable[Event]:
        letter = letters[message.choice]
        (token_id,) = tokenizer.encode(letter)
        yield Admitted(message.uid, 0.0, 0)
        for i, logprob in enumerate(logprobs[letter]):
            reason = "stop" if i + 1 == len(logprobs[letter]) else None
            yield Token(message.uid, token_id, TokenLogprob(logprob, []))
            if reason:
                yield Token(message.uid, tokenizer.eos_id, TokenLogprob(-1.0, []), finish_reason="stop")

    return script


def texts(answer: Any) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_the_best_candidates_by_mean_log_probability_are_shown_and_all_are_counted(
    make_service: ServiceMaker, tokenizer: Tokenizer
) -> None:
    logprobs = {"a": [-9.0], "b": [-2.0, -2.0, -2.0], "c": [-1.5], "d": [-1.0, -1.0]}
    service = make_service(generate=one_letter_each(tokenizer, logprobs))
    answer = service.post(PATH, BASE | {"n": 2, "best_of": 4}).json()
    assert texts(answer) == ["dd", "c"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["usage"]["completion_tokens"] == sum(len(values) + 1 for values in logprobs.values())
    assert [request.params.logprobs for request in service.generate.requests] == [0] * 4


def test_candidates_are_ranked_for_each_prompt_alone(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=one_letter_each(tokenizer, {"a": [-2.0], "b": [-1.0]}))
    answer = service.post(PATH, BASE | {"prompt": ["x", "y"], "best_of": 2, "logprobs": 0}).json()
    assert texts(answer) == ["b", "b"]
    assert answer["choices"][1]["logprobs"]["token_logprobs"] == [-1.0, -1.0]


def test_as_many_candidates_as_choices_need_no_ranking(service: Service) -> None:
    for changes in ({"n": 2, "best_of": 2}, {"best_of": 0}, {"best_of": 1, "stream": True}):
        assert service.post(PATH, BASE | changes).status_code == 200
    assert {request.params.logprobs for request in service.generate.requests} == {None}


def test_greedy_candidates_are_computed_once(make_service: ServiceMaker, tokenizer: Tokenizer) -> None:
    service = make_service(generate=one_letter_each(tokenizer, {"a": [-2.0]}))
    answer = service.post(PATH, BASE | {"best_of": 3, "temperature": 0}).json()
    assert texts(answer) == ["a"]
    assert len(service.generate.requests) == 1
    assert answer["usage"]["completion_tokens"] == 6


def test_bad_words_and_allowed_tokens_reach_the_worker(service: Service, tokenizer: Tokenizer) -> None:
    service.post(PATH, BASE | {"bad_words": ["fox", " dog"], "allowed_token_ids": [3, 4.0], "cache_salt": "mine"})
    request = service.generate.requests[0]
    spelled = ["fox", " fox", " dog"]
    assert set(request.params.bad_words) == {tuple(tokenizer.encode(text)) for text in spelled}
    assert request.params.allowed_token_ids == (3, 4)
    assert request.cache_salt == "mine"


def scores_a_prompt(message: Generate) -> Iterable[Event]:
    scores = [None, TokenLogprob(-0.5, [(8, -0.5), (9, -3.0)]), TokenLogprob(-7.0, [(1, -0.1), (2, -2.0)])]
    yield Admitted(message.uid, 0.0, 0)
    yield Token(message.uid, 40, prompt_logprobs=scores[: len(message.prompt_ids)], finish_reason="length")


def test_scores_of_the_prompt_are_in_the_choice_as_vllm_has_them(make_service: ServiceMaker) -> None:
    service = make_service(generate=scores_a_prompt)
    tokenizer = service.models.get("tiny-base").tokenizer
    answer = service.post(PATH, BASE | {"prompt": [7, 8, 9], "prompt_logprobs": 1}).json()
    first, second, third = answer["choices"][0]["prompt_logprobs"]
    assert first is None
    assert second == {"8": {"logprob": -0.5, "rank": 1, "decoded_token": tokenizer.decode([8])}}
    assert third["9"] == {"logprob": -7.0, "rank": None, "decoded_token": tokenizer.decode([9])}
    assert third["1"]["rank"] == 1
    assert len(third) == 2
    assert service.generate.requests[0].params.prompt_logprobs == 1
    assert answer["choices"][0]["logprobs"] is None


def test_scores_of_a_prompt_go_together_with_its_echo(make_service: ServiceMaker) -> None:
    service = make_service(generate=scores_a_prompt)
    body = BASE | {"prompt": [7, 8, 9], "prompt_logprobs": 0, "echo": True, "logprobs": 2}
    choice = service.post(PATH, body).json()["choices"][0]
    assert service.generate.requests[0].params.prompt_logprobs == 2
    assert len(choice["logprobs"]["top_logprobs"][1]) == 2
    assert [len(entry) for entry in choice["prompt_logprobs"] if entry] == [1, 1]


def test_scores_of_a_conversation_stand_beside_the_choices(make_service: ServiceMaker) -> None:
    def script(message: Generate) -> Iterable[Event]:
        scores = [None, *[TokenLogprob(-1.0, [])] * (len(message.prompt_ids) - 1)]
        yield Admitted(message.uid, 0.0, 0)
        yield Token(message.uid, 40, prompt_logprobs=scores, finish_reason="length")

    service = make_service(generate=script)
    answer = service.post("/v1/chat/completions", TALK | {"prompt_logprobs": 0, "n": 2}).json()
    assert len(answer["prompt_logprobs"]) == len(service.generate.requests[0].prompt_ids)
    assert "prompt_logprobs" not in answer["choices"][0]


@pytest.mark.parametrize("interval", [1, 3, 100])
def test_a_stream_can_gather_tokens(make_service: ServiceMaker, interval: int) -> None:
    text = "abcdefgh"
    service = make_service(text=text, stream_interval=interval)
    tokens = service.models.get("tiny-base").tokenizer.encode(text)
    pieces = [event["choices"][0]["text"] for event in service.stream(PATH, BASE)]
    assert "".join(pieces) == text
    middle = -(-(len(tokens) - 1) // interval)
    assert len([piece for piece in pieces if piece]) == 1 + middle
    assert service.post(PATH, BASE).json()["choices"][0]["text"] == text
