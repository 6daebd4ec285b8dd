"""The clients that people have, unmodified, against a real server of the demo models.

openai-python of this environment is used right here. The others run as scripts (`tests/service/clients/`) in an
environment of their own, which `make clients` installs: instructor and litellm ask for an older openai and
huggingface-hub than ours. lm-evaluation-harness has a file of its own, tests/e2e/test_harness.py.

A random model, `wide-chat`, stands beside the demo models, since their context is too short for what some clients add.
"""

import asyncio
import json
import os
import re
import shutil
import struct
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict

from model.chat import DEFAULT_TEMPLATE
from model.checkpoint import save_checkpoint
from model.tokenizer import Tokenizer
from tests.e2e.conftest import Server, start_server
from tests.program import poll
from tests.tiny import make_config, make_gpt

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "checkpoints"
SCRIPTS = Path(__file__).parent / "clients"
CLIENTS = Path(os.environ.get("GROUNDUP_CLIENTS", ROOT / ".venv-clients"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DEMO / "groundup-chat").is_dir(), reason="no demo checkpoints; `make train` makes them"),
]

QUESTION = 'Spell "groundup".'
ASKED: dict[str, Any] = {
    "model": "groundup-chat",
    "messages": [{"role": "user", "content": QUESTION}],
    "temperature": 0,
}
STORY: dict[str, Any] = {"model": "groundup-base", "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}
MAX_WAITING = 48


class Verdict(BaseModel):
    """An answer that even a random model can be held to; one that may add properties goes on doing so."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["good", "bad"]
    is_sure: bool


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    for name in ("groundup-base", "groundup-chat", "groundup-spam"):
        (folder / name).symlink_to(DEMO / name)
    model = make_gpt(make_config("llama", block_size=4096))
    end = [tokenizer.special_tokens["<|end|>"], tokenizer.eos_id]
    settings: dict[str, Any] = {"chat_template": DEFAULT_TEMPLATE, "eos_token_ids": end}
    save_checkpoint(folder / "wide-chat", model, tokenizer, model_card="# Random\n", **settings)
    log = tmp_path_factory.mktemp("log") / "server.log"
    with start_server(folder, log, max_waiting_requests=MAX_WAITING) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def spelled(client: OpenAI) -> str:
    """What the assistant answers to QUESTION, and the answer every other client has to get."""
    return client.chat.completions.create(**ASKED).choices[0].message.content or ""


@pytest.fixture(scope="module")
def told(client: OpenAI) -> str:
    """How the base model goes on with STORY."""
    return client.completions.create(**STORY).choices[0].text


@pytest.fixture(scope="module")
def embedded(client: OpenAI) -> list[float]:
    """Where "a boat" lies for the base model."""
    return client.embeddings.create(model="groundup-base", input="a boat").data[0].embedding


def num_answers(server: Server, status: int) -> float:
    """How many requests to generate have been answered with a status."""
    page = server.client.get("/metrics").text
    found = re.findall(rf'^http_requests_total\{{(?=.*completions)(?=.*status="{status}").*\}} (\S+)$', page, re.M)
    return sum(map(float, found))


def is_idle(server: Server) -> bool:
    page = server.client.get("/metrics").text
    return not any(map(float, re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", page, re.M)))


# openai-python


def test_openai_answers_and_streams_the_same(client: OpenAI, spelled: str, told: str) -> None:
    assert spelled == "g-r-o-u-n-d-u-p"
    with client.chat.completions.create(**ASKED, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == spelled
    with client.chat.completions.stream(**ASKED) as helped:
        assert "".join(event.delta for event in helped if event.type == "content.delta") == spelled
        assert helped.get_final_completion().choices[0].finish_reason == "stop"
    with client.completions.create(**STORY, stream=True) as continued:
        assert "".join(chunk.choices[0].text for chunk in continued) == told


def test_openai_has_responses(client: OpenAI, spelled: str) -> None:
    asked: dict[str, Any] = {"model": "groundup-chat", "input": QUESTION, "temperature": 0}
    assert client.responses.create(**asked).output_text == spelled
    with client.responses.stream(**asked) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == spelled
        assert stream.get_final_response().status == "completed"


def test_openai_lists_models(client: OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {
        "groundup-base",
        "groundup-chat",
        "groundup-spam",
        "wide-chat",
    }
    assert client.models.retrieve("groundup-chat").id == "groundup-chat"


def test_openai_embeds_in_both_formats(client: OpenAI, embedded: list[float]) -> None:
    assert sum(value * value for value in embedded) == pytest.approx(1, abs=1e-5)
    texts = ["a boat", "a river"]
    answer = client.embeddings.create(model="groundup-base", input=texts, encoding_format="float")
    assert [entry.index for entry in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx(embedded, abs=1e-5)
    raw = client.embeddings.with_raw_response.create(model="groundup-base", input="a boat", encoding_format="base64")
    packed = b64decode(json.loads(raw.content)["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(embedded)}f", packed)) == pytest.approx(embedded, abs=1e-5)


def test_openai_parses_answers_into_objects(client: OpenAI) -> None:
    question = [{"role": "user", "content": "Is bread good?"}]
    answer = client.chat.completions.parse(model="wide-chat", messages=question, response_format=Verdict, seed=1)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_openai_calls_functions(client: OpenAI) -> None:
    tool = openai.pydantic_function_tool(Verdict, name="judge")
    question = [{"role": "user", "content": "Is bread good?"}]
    named = {"type": "function", "function": {"name": "judge"}}
    for choice in ("required", named):
        answer = client.chat.completions.parse(
            model="wide-chat", messages=question, tools=[tool], tool_choice=choice, seed=1
        )
        calls = answer.choices[0].message.tool_calls or []
        assert len(calls) == 1 if choice == named else calls
        assert {call.function.name for call in calls} == {"judge"}
        assert all(isinstance(call.function.parsed_arguments, Verdict) for call in calls)


def test_openai_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**ASKED | {"model": "nope"})
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(**STORY | {"prompt": "boat " * 1000})
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as no_assistant:
        client.chat.completions.create(**ASKED | {"model": "groundup-base"})
    assert no_assistant.value.code == "unsupported_model"


def test_openai_tries_again_what_may_work_later_and_nothing_else(served: Server) -> None:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=1, timeout=60) as client:
        before = num_answers(served, 503)
        with pytest.raises(openai.InternalServerError) as overloaded:
            client.completions.create(**STORY | {"prompt": ["x"] * (MAX_WAITING + 1)})
        assert overloaded.value.code == "server_overloaded"
        assert num_answers(served, 503) == before + 2
        before = num_answers(served, 504)
        endless = {"model": "wide-chat", "prompt": "x", "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
        with pytest.raises(openai.InternalServerError) as late:
            client.completions.create(**endless, extra_headers={"x-request-timeout-ms": "500"})
        assert late.value.code == "timeout"
        assert num_answers(served, 504) == before + 1


def test_openai_gives_up_after_its_timeout_and_the_server_lets_go(served: Server, client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(
            model="wide-chat", prompt="x", max_tokens=4000, extra_body={"ignore_eos": True}
        )
    poll(lambda: is_idle(served), 30, "the server still works for a client that gave up")


def test_openai_in_many_tasks_at_once(served: Server, spelled: str) -> None:
    async def ask(client: AsyncOpenAI) -> str:
        return (await client.chat.completions.create(**ASKED)).choices[0].message.content or ""

    async def leave(client: AsyncOpenAI) -> None:
        async with await client.completions.create(**STORY | {"max_tokens": 200}, stream=True) as stream:
            async for _ in stream:
                return

    async def main() -> list[str]:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            answers = asyncio.gather(*(ask(client) for _ in range(16)))
            await asyncio.gather(*(leave(client) for _ in range(4)))
            return await answers

    assert asyncio.run(main()) == [spelled] * 16
    poll(lambda: is_idle(served), 30, "the server still works for clients that left")


# The others

Ran = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ran(served: Server) -> Ran:
    """Run a script against the server and return what came of its checks."""
    outcomes: dict[str, dict[str, Any]] = {}

    def run(script: str) -> dict[str, Any]:
        if script not in outcomes:
            outcomes[script] = run_script(script, f"{served.url}/v1")
        return outcomes[script]

    return run


def run_script(script: str, url: str) -> dict[str, Any]:
    if script.endswith(".cjs"):
        program, package = shutil.which("node"), CLIENTS / "node_modules" / "openai"
        if program is None or not package.is_dir():
            pytest.skip("no node, or no openai package for it; `make clients` installs the latter")
    else:
        program = str(CLIENTS / "bin" / "python")
        if not (CLIENTS / ".installed").exists():
            pytest.skip("the clients are not installed; `make clients` does it")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "NODE_PATH": str(CLIENTS / "node_modules"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it looks for prices on the web
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(
        [program, SCRIPTS / script, url], env=env, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def joined(texts: list[str]) -> str:
    assert len(texts) > 3, "nothing was streamed"
    return "".join(texts)


def test_openai_for_node(ran: Ran, spelled: str, told: str, embedded: list[float]) -> None:
    found = ran("use_openai.cjs")
    assert (found["chat"], found["helper"], found["completion"]) == (spelled, spelled, told)
    assert joined(found["stream"]) == spelled
    assert set(found["models"]) > {"groundup-base", "groundup-chat"}
    assert found["error"] == [True, "model_not_found", "model", True]
    assert found["leave"] is True
    assert found["embedding"] == pytest.approx(embedded, abs=1e-5)


def test_langchain_answers(ran: Ran, spelled: str, told: str) -> None:
    found = ran("use_langchain.py")
    assert (found["chat"], found["completion"], found["batch"]) == (spelled, told, [spelled] * 3)
    assert joined(found["stream"]) == spelled
    assert found["usage"] > 1


def test_langchain_embeds_text_and_is_told_when_it_sends_the_ids_of_another_tokenizer(
    ran: Ran, client: OpenAI, embedded: list[float]
) -> None:
    found = ran("use_langchain.py")
    assert found["query"] == pytest.approx(embedded, abs=1e-5)
    assert found["embeddings"][0] == pytest.approx(embedded, abs=1e-5)
    # What its default sends: ids of OpenAI's vocabulary, which it would have to download here first.
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as refused:
        client.embeddings.create(model="groundup-base", input=[[64, 15688]])
    assert refused.value.code == "invalid_token_id"


def test_langchain_gets_structured_answers(ran: Ran) -> None:
    found = ran("use_langchain.py")
    assert found["function"] == found["schema"] == ["is_sure", "verdict"]


def test_litellm_answers(ran: Ran, spelled: str, told: str) -> None:
    found = ran("use_litellm.py")
    assert (found["chat"], found["completion"]) == (spelled, told)
    assert joined(found["stream"]) == spelled


def test_litellm_knows_our_errors(ran: Ran) -> None:
    found = ran("use_litellm.py")
    assert found["too long"].startswith("ContextWindowExceededError: ")
    assert found["no such model"].startswith("NotFoundError: ")


def test_litellm_embeds_and_calls_functions(ran: Ran, embedded: list[float]) -> None:
    found = ran("use_litellm.py")
    assert found["embedding"] == pytest.approx(embedded, abs=1e-5)
    assert found["tool"] == "judge"


def test_llm_answers(ran: Ran, spelled: str, told: str) -> None:
    found = ran("use_llm.py")
    assert (found["stream"], found["completion"]) == (spelled, told.strip())


@pytest.mark.parametrize("mode", ["JSON", "JSON_SCHEMA", "TOOLS"])
def test_instructor_gets_objects(ran: Ran, mode: str) -> None:
    assert ran("use_instructor.py")[mode] == (["verdict"] if mode == "JSON" else ["is_sure", "verdict"])
