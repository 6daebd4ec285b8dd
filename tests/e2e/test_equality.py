"""Many requests at once through HTTP give, one by one, what `generate` gives each of them alone."""

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.chat import ChatTemplate
from model.checkpoint import load_gpt
from model.directory import read_checkpoint
from model.generate import generate
from model.gpt import GPT
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

NUM_REQUESTS = 64
WORDS = ["the", "quick", "brown", "fox", "été", "日本語", "🙂", "1869;", "costs", "€5!"]
STOPS = ["e", "th", "\ufffd", "o", "\u00e9", " ", "1", "qu"]


@dataclass(frozen=True)
class Case:
    """A request body, and what it means without HTTP."""

    path: str
    body: dict[str, Any]
    prompt_ids: list[int]
    params: SamplingParams


class Oracle:
    """One model on its own, without cache, batch or server."""

    def __init__(self, path: Path) -> None:
        self.checkpoint = read_checkpoint(path)
        self.tokenizer = Tokenizer.from_directory(path)
        self.model: GPT = load_gpt(path)

    def answer(self, case: Case, choice: int) -> list[int]:
        eos_token_ids = self.checkpoint.eos_token_ids
        alone = generate(self.model, case.prompt_ids, case.params, choice=choice, eos_token_ids=eos_token_ids)
        return alone.output_ids

    def text(self, token_ids: list[int], ends_with_stop_token: bool) -> str:
        shown = token_ids[:-1] if ends_with_stop_token else token_ids
        return self.tokenizer.decode(shown, skip_special=True)


@pytest.fixture(scope="module")
def oracles(tiny_checkpoints: Path) -> dict[str, Oracle]:
    return {name: Oracle(tiny_checkpoints / name) for name in ("tiny-base", "tiny-chat")}


def draw_settings(rng: random.Random, room: int) -> dict[str, Any]:
    """Settings that `SamplingParams` and a request body share."""
    max_tokens = rng.randint(1, min(room, 60))
    settings: dict[str, Any] = {
        "max_tokens": max_tokens,
        "seed": rng.randrange(2**63),
        "ignore_eos": rng.random() < 0.5,
    }
    choices: dict[str, Any] = {
        "temperature": rng.choice([0.0, 0.3, 1.0, 1.7]),
        "top_p": rng.choice([0.1, 0.9, 1.0]),
        "top_k": rng.choice([0, 1, 5, 50]),
        "min_p": rng.choice([0.0, 0.2]),
        "repetition_penalty": rng.choice([1.0, 1.3]),
        "presence_penalty": rng.choice([0.0, 1.5]),
        "frequency_penalty": rng.choice([0.0, -0.5]),
        "min_tokens": rng.randint(0, max_tokens),
        "stop_token_ids": rng.sample(range(384), 3),
        "logit_bias": {str(rng.randrange(384)): rng.choice([-100, 5])},
    }
    return settings | {name: value for name, value in choices.items() if rng.random() < 0.5}


def as_params(settings: dict[str, Any]) -> SamplingParams:
    fields = dict(settings)
    fields["logit_bias"] = tuple((int(key), float(value)) for key, value in settings.get("logit_bias", {}).items())
    fields["stop_token_ids"] = tuple(settings.get("stop_token_ids", ()))
    return SamplingParams(**fields)


def draw_case(rng: random.Random, oracles: dict[str, Oracle], folder: Path) -> Case:
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
    extras = {"n": rng.choice([1, 1, 3]), "return_token_ids": True}
    if rng.random() < 0.5:
        tokenizer = oracles["tiny-base"].tokenizer
        prompt_ids = tokenizer.encode(text)
        settings = draw_settings(rng, 128 - len(prompt_ids))
        body = {"model": "tiny-base", "prompt": rng.choice([text, prompt_ids]), **settings, **extras}
        return Case("/v1/completions", body, prompt_ids, as_params(settings))
    messages = [{"role": "user", "content": text}]
    prompt_ids = ChatTemplate.from_directory(folder / "tiny-chat", oracles["tiny-chat"].tokenizer).encode(messages)
    settings = draw_settings(rng, 128 - len(prompt_ids))
    body = {"model": "tiny-chat", "messages": messages, **settings, **extras}
    return Case("/v1/chat/completions", body, prompt_ids, as_params(settings))


@dataclass
class Heard:
    """One choice as a client puts it together."""

    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


async def ask(client: httpx.AsyncClient, case: Case, changes: dict[str, Any]) -> list[Heard]:
    heard = [Heard(token_ids=[]) for _ in range(case.body["n"])]
    body = {**case.body, **changes}
    if not body.get("stream"):
        response = await client.post(case.path, json=body)
        assert response.status_code == 200, response.text
        hear(heard, response.json())
        return heard
    async with client.stream("POST", case.path, json=body) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line and line != "data: [DONE]":
                hear(heard, json.loads(line.removeprefix("data: ")))
    return heard


def hear(heard: list[Heard], answer: dict[str, Any]) -> None:
    for choice in answer["choices"]:
        mine = heard[choice["index"]]
        content = choice.get("message") or choice.get("delta") or {"content": choice.get("text", "")}
        mine.text += content.get("content", "")
        assert mine.token_ids is not None
        mine.token_ids += choice.get("token_ids") or []
        mine.finish_reason = choice["finish_reason"] or mine.finish_reason
        mine.stop_reason = choice["stop_reason"] if choice["stop_reason"] is not None else mine.stop_reason


def ask_all(url: str, cases: list[Case], changes: list[dict[str, Any]]) -> list[list[Heard]]:
    """Send everything at once."""

    async def main() -> list[list[Heard]]:
        limits = httpx.Limits(max_connections=len(cases))
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            return await asyncio.gather(*map(ask, [client] * len(cases), cases, changes))

    return asyncio.run(main())


def test_concurrent_requests_equal_generate_alone(
    server: Server, oracles: dict[str, Oracle], tiny_checkpoints: Path
) -> None:
    rng = random.Random(20)
    cases = [draw_case(rng, oracles, tiny_checkpoints) for _ in range(NUM_REQUESTS)]
    answers = ask_all(server.url, cases, [{"stream": i % 2 == 1} for i in range(NUM_REQUESTS)])
    for case, choices in zip(cases, answers, strict=True):
        oracle = oracles[case.body["model"]]
        for choice, heard in enumerate(choices):
            alone = oracle.answer(case, 0 if case.params.temperature == 0 else choice)
            assert heard.token_ids == alone
            assert heard.text == oracle.text(alone, heard.finish_reason == "stop")


def test_streamed_text_equals_unstreamed_with_stop_strings(
    server: Server, oracles: dict[str, Oracle], tiny_checkpoints: Path
) -> None:
    """Random models write broken and multi-byte characters across tokens all the time; every choice may be cut."""
    rng = random.Random(21)
    cases = [draw_case(rng, oracles, tiny_checkpoints) for _ in range(NUM_REQUESTS)]
    stops = [
        {"stop": rng.sample(STOPS, rng.randint(1, 4)), "include_stop_str_in_output": rng.random() < 0.3} for _ in cases
    ]
    unstreamed = ask_all(server.url, cases, stops)
    streamed = ask_all(server.url, cases, [{**stop, "stream": True} for stop in stops])
    assert streamed == unstreamed
    assert sum(heard.stop_reason in STOPS for choices in streamed for heard in choices) > NUM_REQUESTS // 4
    for case, stop, choices in zip(cases, stops, unstreamed, strict=True):
        for choice, heard in enumerate(choices):
            alone = oracles[case.body["model"]].answer(case, 0 if case.params.temperature == 0 else choice)
            assert heard.token_ids == alone[: len(heard.token_ids or [])]
            if (
                heard.stop_reason in stop["stop"]
                and not stop["include_stop_str_in_output"]
                and not case.params.min_tokens
            ):
                assert not any(text in heard.text for text in stop["stop"])
