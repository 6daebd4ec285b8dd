"""A served model whose vocabulary marks spaces and expects a token before the text, in front of a scripted worker."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from model.tokenizer import Tokenizer
from service.host.messages import Admitted, Event, Token, TokenLogprob
from service.settings import ServiceSettings
from service.web.catalog import load_models
from tests.service.web.scripted_worker import ScriptedWorker, Service, writes

ANSWER = "the lazy caf\u00e9 \U0001f640\n end"
COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"
BOS = 1
NAMED = {"model": "tiny-llama2"}


@pytest.fixture(scope="module")
def llama(llama2_checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_directory(llama2_checkpoint)


@pytest.fixture
def service(llama2_checkpoint: Path, llama: Tokenizer) -> Service:
    settings = ServiceSettings(checkpoints=(llama2_checkpoint,))
    worker = ScriptedWorker(writes(llama.encode(ANSWER)))
    return Service(load_models(settings), settings, worker, ScriptedWorker(writes([])))


def sent(service: Service) -> list[int]:
    ids: list[int] = service.generate.requests[-1].prompt_ids
    return ids


def post(service: Service, path: str, **body: Any) -> Any:
    response = service.post(path, NAMED | body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("body", "opening"),
    [({}, [BOS]), ({"add_special_tokens": False}, []), ({"truncate_prompt_tokens": 3}, [BOS])],
)
def test_a_prompt_of_text_gets_the_token_that_models_expect(
    service: Service, llama: Tokenizer, body: dict[str, Any], opening: list[int]
) -> None:
    post(service, COMPLETE, prompt="the quick fox", **body)
    text = llama.encode("the quick fox")
    assert sent(service) == [*opening, *(text[-2:] if "truncate_prompt_tokens" in body else text)]


def test_a_prompt_of_ids_is_sent_as_it_is(service: Service) -> None:
    post(service, COMPLETE, prompt=[300, 301])
    assert sent(service) == [300, 301]


def test_an_empty_prompt_is_the_opening_token(service: Service) -> None:
    assert post(service, COMPLETE, prompt="")["choices"][0]["text"] == ANSWER
    assert sent(service) == [BOS]


def test_a_completion_keeps_the_space_after_its_prompt(service: Service) -> None:
    plain = post(service, COMPLETE, prompt="over")["choices"][0]["text"]
    assert plain == f" {ANSWER}"
    assert post(service, COMPLETE, prompt="over", echo=True)["choices"][0]["text"] == f"over {ANSWER}"
    chunks = service.stream(COMPLETE, NAMED | {"prompt": "over"})
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == plain


def test_an_answer_in_a_conversation_has_no_space_before_it(service: Service, llama: Tokenizer) -> None:
    messages = [{"role": "user", "content": "the <s> fox"}]
    plain = post(service, CHAT, messages=messages)["choices"][0]["message"]["content"]
    assert plain == ANSWER
    assert sent(service).count(BOS) == 1
    chunks = service.stream(CHAT, NAMED | {"messages": messages})
    deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == plain


def test_a_continued_answer_keeps_its_space(service: Service) -> None:
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is"}]
    continued = {"add_generation_prompt": False, "continue_final_message": True}
    answer = post(service, CHAT, messages=messages, **continued)
    assert answer["choices"][0]["message"]["content"] == f" {ANSWER}"


def test_bytes_of_tokens_join_to_the_answer(service: Service, llama: Tokenizer) -> None:
    ids = llama.encode(ANSWER)
    service.generate.script = writes(ids, logprobs=[TokenLogprob(-1.0, [(ids[0], -1.0)])] * len(ids))
    choice = post(service, CHAT, messages=[{"role": "user", "content": "Who?"}], logprobs=True, top_logprobs=1)
    entries = choice["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == ANSWER
    assert entries[0]["top_logprobs"][0]["bytes"] == entries[0]["bytes"]


def test_an_echo_scores_the_opening_token_without_showing_it(service: Service, llama: Tokenizer) -> None:
    prompt_ids, ids = [BOS, *llama.encode("the fox")], llama.encode("end")
    score = TokenLogprob(-1.0, [])

    def script(message: Any) -> Iterable[Event]:
        yield Admitted(message.uid, 0.001, 0)
        yield Token(message.uid, ids[0], score, prompt_logprobs=[None] + [score] * (len(prompt_ids) - 1))
        for id_ in ids[1:]:
            yield Token(message.uid, id_, score)
        yield Token(message.uid, None, finish_reason="length")

    service.generate.script = script
    choice = post(service, COMPLETE, prompt="the fox", echo=True, logprobs=1)["choices"][0]
    assert choice["text"] == "the fox end"
    assert choice["logprobs"]["tokens"][0] == "<s>"
    assert choice["logprobs"]["text_offset"][:2] == [0, 0]
    assert len(choice["logprobs"]["tokens"]) == len(prompt_ids) + len(ids)


def test_tokenize_adds_the_opening_token_unless_told_not_to(service: Service, llama: Tokenizer) -> None:
    text = llama.encode("the fox")
    assert post(service, "/tokenize", prompt="the fox")["tokens"] == [BOS, *text]
    assert post(service, "/tokenize", prompt="the fox", add_special_tokens=False)["tokens"] == text
    assert post(service, "/detokenize", tokens=text)["prompt"] == "the fox"
