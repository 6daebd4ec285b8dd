"""Models that are added, replaced and removed while requests run: a real server, real sockets."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from model.adapter_config import AdapterConfig
from model.adapter_directory import read_adapter
from model.checkpoint import load_merged, save_checkpoint
from model.classifier import GPTClassifier
from model.generate import generate
from model.gpt import GPT
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from tests.e2e.conftest import Server, start_server
from tests.model.test_adapter_rows import make_adapter
from tests.program import poll
from tests.service.web.conftest import ServiceMaker
from tests.tiny import make_config, make_gpt

KEY = "the-admin-key"
PROMPT = "Once upon a time"
CONFIG = make_config("gpt2")


def make_classifier(seed: int) -> GPTClassifier:
    torch.manual_seed(seed)
    classifier = GPTClassifier(CONFIG, 3)
    classifier.gpt.load_state_dict(make_gpt(CONFIG).state_dict(), strict=False)
    return classifier.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """Two versions of a base, adapters of the first and of nothing that is here, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    base = make_gpt(CONFIG)
    save_checkpoint(folder / "base", base, tokenizer, model_card="")
    save_checkpoint(folder / "newer", make_gpt(CONFIG, seed=9), tokenizer, model_card="")
    own = {"base": str(folder / "base")}
    make_adapter(folder / "one", base, AdapterConfig(rank=8, alpha=16, **own))
    make_adapter(folder / "two", base, AdapterConfig(rank=2, alpha=8, targets=("c_attn",), **own), seed=2)
    make_adapter(folder / "labels", make_classifier(4), AdapterConfig(rank=4, alpha=8, **own), seed=3)
    make_adapter(folder / "stray", make_gpt(CONFIG, seed=5), AdapterConfig(rank=2, alpha=8))
    save_checkpoint(folder / "spam", make_classifier(6), tokenizer, model_card="", labels=["a", "b", "c"])
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    (log.parent / "key").write_text(f"{KEY}\n")
    settings = {"admin_key_file": log.parent / "key", "max_num_seqs": 16, "aliases": "gpt-4o=one"}
    with start_server(folder, log, "base", "one", "two", "labels", **settings) as server:
        yield server


class Admin:
    """An operator with the admin key."""

    def __init__(self, client: httpx.Client, folder: Path) -> None:
        self.folder = folder
        self._client = client

    def add(self, name: str, **fields: Any) -> httpx.Response:
        return self._client.post("/admin/models", json={"path": str(self.folder / name), **fields})

    def post(self, body: Any) -> httpx.Response:
        return self._client.post("/admin/models", json=body)

    def remove(self, model_id: str) -> httpx.Response:
        return self._client.delete(f"/admin/models/{model_id}")

    def models(self) -> dict[str, Any]:
        return {model["id"]: model for model in self._client.get("/admin/models").json()["data"]}


@pytest.fixture
def admin(server: Server, folder: Path) -> Iterator[Admin]:
    """Leaves the server as it was."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, timeout=60, headers=headers) as client:
        admin = Admin(client, folder)
        yield admin
        for name in admin.models().keys() - {"base", "one", "two", "labels"}:
            assert admin.remove(name).status_code == 200
        if not admin.models()["base"]["path"].endswith("base"):
            assert admin.add("base").status_code == 200
        for name in sorted({"one", "two", "labels"} - admin.models().keys()):
            assert admin.add(name).status_code == 200


def complete(server: Server, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}
    return server.client.post("/v1/completions", json=body)


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def expected(model: GPT | GPTClassifier, tokenizer: Tokenizer) -> str:
    assert isinstance(model, GPT)
    params = SamplingParams(max_tokens=12, temperature=0.0)
    return tokenizer.decode(
        generate(model, tokenizer.encode(PROMPT), params, eos_token_ids=(tokenizer.eos_id,)).output_ids
    )


def test_a_directory_whose_name_looks_like_a_version_keeps_its_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    names = [f"base#{number}" for number in range(5, 10)]
    for name in names:
        shutil.copytree(folder / "base", tmp_path / name)
    paths = [str(folder / "base"), *(str(tmp_path / name) for name in names)]
    with start_server(tmp_path, tmp_path / "log", *paths, admin_key_file=tmp_path / "key") as server:
        before = text_of(complete(server, "base"))
        with httpx.Client(base_url=server.url, timeout=60, headers={"Authorization": f"Bearer {KEY}"}) as client:
            admin = Admin(client, folder)
            for _ in range(3):
                assert admin.add("newer", id="base").status_code == 200
            versions = [model["version"] for model in admin.models().values()]
        assert len(set(versions)) == len(versions)
        assert text_of(complete(server, "base")) != before
        assert [text_of(complete(server, name)) for name in names] == [before] * len(names)


def test_base_adapters_and_head_answer_from_one_process(server: Server, folder: Path, tokenizer: Tokenizer) -> None:
    assert text_of(complete(server, "base")) == expected(make_gpt(CONFIG), tokenizer)
    for name in ("one", "two"):
        merged = load_merged(read_adapter(folder / name), folder / "base")
        assert text_of(complete(server, name)) == expected(merged, tokenizer)
    answer = server.client.post("/classify", json={"input": PROMPT, "raw_scores": True}).json()
    classifier = load_merged(read_adapter(folder / "labels"), folder / "base")
    ids = tokenizer.encode(PROMPT)
    logits = classifier(torch.tensor([ids]), torch.tensor([len(ids)]))[0].tolist()
    assert answer["model"] == "labels"
    assert answer["data"][0]["logits"] == pytest.approx(logits, abs=1e-4)
    body = {"model": "one", "input": PROMPT, "encoding_format": "float", "normalize": False}
    found = server.client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    hidden = load_merged(read_adapter(folder / "one"), folder / "base")(torch.tensor([ids]))[0].mean(0)
    assert found == pytest.approx(hidden.tolist(), abs=1e-4)
    # One worker holds the weights; the other, for classifiers of their own, has not even imported torch.
    sizes = sorted(worker.memory_info().rss for worker in server.program.workers)
    assert sizes[0] < 120e6


def test_cards_name_parents_and_aliases(server: Server) -> None:
    cards = {card["id"]: card for card in server.client.get("/v1/models").json()["data"]}
    assert {name: (card["root"], card["parent"]) for name, card in cards.items()} == {
        "base": ("base", None),
        "one": ("one", "base"),
        "two": ("two", "base"),
        "labels": ("labels", "base"),
        "gpt-4o": ("one", "base"),
    }
    assert server.client.get("/v1/models/gpt-4o").json() == cards["gpt-4o"]
    assert text_of(complete(server, "gpt-4o")) == text_of(complete(server, "one"))


def test_a_model_is_replaced_under_load_and_no_request_fails(
    server: Server, admin: Admin, tokenizer: Tokenizer
) -> None:
    old, new = (expected(make_gpt(CONFIG, seed=seed), tokenizer) for seed in (0, 9))
    adapted = text_of(complete(server, "one"))
    allowed = {"base": {old, new}, "one": {adapted}}
    failures: list[str] = []
    answers: list[str] = []
    is_over = threading.Event()

    def ask(number: int) -> None:
        name = ("base", "one")[number % 2]
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not is_over.is_set():
                body = {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stream": number % 3 == 0}
                answer = client.post("/v1/completions", json=body)
                text = read_stream(answer.text) if body["stream"] else answer.text
                if not body["stream"] and answer.status_code == 200:
                    text = answer.json()["choices"][0]["text"]
                (answers if text in allowed[name] else failures).append(text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    try:
        for name in ("newer", "base", "newer", "base", "newer"):
            before = len(answers)
            replaced = admin.add(name, id="base")
            assert replaced.status_code == 200, replaced.text
            poll(lambda before=before: len(answers) > before + 12, 30, "no answers")  # type: ignore[misc]
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert text_of(complete(server, "base")) == new
    assert text_of(complete(server, "one")) == adapted, "an adapter stays on the base it was made for"
    # The versions between are gone: who asks for the same id again gets a version of its own that nobody else uses.
    assert admin.models()["base"]["uses"] == 1


def read_stream(text: str) -> str:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    if any("error" in chunk for chunk in chunks):
        return text
    return "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])


def test_a_request_that_runs_finishes_on_the_version_it_began_with(
    server: Server, admin: Admin, tokenizer: Tokenizer
) -> None:
    body = {"model": "base", "prompt": PROMPT, "max_tokens": 100, "temperature": 0, "ignore_eos": True}
    whole = text_of(server.client.post("/v1/completions", json=body))
    with server.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        assert admin.add("newer", id="base").status_code == 200
        text = read_stream("\n".join([first, *lines]))
    assert text == whole
    assert text_of(complete(server, "base")) == expected(make_gpt(CONFIG, seed=9), tokenizer)


def test_adapters_and_classifiers_come_and_go(server: Server, admin: Admin) -> None:
    before = text_of(complete(server, "two"))
    assert admin.remove("two").json() == {"id": "two", "object": "model", "deleted": True}
    assert complete(server, "two").status_code == 404
    added = admin.add("two").json()
    assert (added["status"], added["parent"], added["object"]) == ("ready", "base", "model")
    assert text_of(complete(server, "two")) == before
    # The first classifier with weights of its own finds a worker that waited for it.
    assert admin.add("spam").json()["capabilities"] == ["classify"]
    assert server.client.post("/classify", json={"model": "spam", "input": "Hi"}).json()["labels"] == ["a", "b", "c"]


def test_metrics_show_what_is_served_and_nothing_that_is_gone(server: Server, admin: Admin) -> None:
    def shown(model_id: str) -> list[bool]:
        lines = server.client.get("/metrics").text.splitlines()
        mine = [line for line in lines if f'model_name="{model_id}"' in line and not line.endswith(" 0.0")]
        names = ("groundup_model_info{", "vllm:cache_config_info{", "groundup_model_load_seconds{")
        return [any(line.startswith(name) for line in mine) for name in names]

    for _ in range(2):  # the second is the same once more
        assert admin.add("newer").status_code == 200
        poll(lambda: admin.models()["newer"]["uses"] == 1, 30, "the version before is still there")
        assert shown("newer") == [True, True, True]
    assert admin.remove("newer").status_code == 200
    poll(lambda: shown("newer") == [False, False, False], 30, "it is still shown")
    assert shown("base") == [True, True, True]


def test_without_its_base_an_adapter_goes_on_and_no_other_can_come(server: Server, admin: Admin) -> None:
    before = text_of(complete(server, "one"))
    assert admin.remove("base").status_code == 200
    try:
        assert complete(server, "base").status_code == 404
        assert text_of(complete(server, "one")) == before
        refused = admin.add("two", id="third")
        assert refused.status_code == 400
        assert "its base is not served" in refused.json()["error"]["message"]
        assert server.client.get("/readyz").status_code == 200
    finally:
        assert admin.add("base").status_code == 200


def test_with_no_model_left_the_service_is_ready_and_says_there_is_none(server: Server, admin: Admin) -> None:
    names = ["two", "one", "labels", "base"]
    for name in names:
        assert admin.remove(name).status_code == 200
    try:
        assert server.client.get("/readyz").status_code == 200
        assert server.client.get("/v1/models").json()["data"] == []
        assert complete(server, "base").json()["error"]["code"] == "model_not_found"
        assert server.client.post("/tokenize", json={"prompt": "Hi"}).status_code == 400
    finally:
        for name in reversed(names):
            assert admin.add(name).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "path", "Missing required parameter: 'path'."),
        ({"path": None}, "path", "Missing required parameter: 'path'."),
        ({"path": ""}, "path", "a string must not be empty"),
        ({"path": 5}, "path", "Invalid type for 'path': expected a string, but got an integer instead."),
        ({"path": "x" * 4097}, "path", "maximum length 4096"),
        ({"path": "{folder}/" + "x" * 256}, "path", "File name too long"),
        ({"path": "{folder}/base", "id": "a b"}, "id", "'a b' does not match the pattern"),
        ({"path": "{folder}/base", "id": "a/"}, "id", "'a/' does not match the pattern"),
        ({"path": "{folder}/base", "id": "a" * 129}, "id", "does not match the pattern"),
        ({"path": "{folder}/base", "size": 1}, None, "Unrecognized request argument supplied: size"),
        ({"path": "/etc"}, "path", "'/etc' is not below a directory that models may be loaded from"),
        ({"path": "{folder}"}, "path", "is not below a directory"),
        ({"path": "{folder}/../../../etc/passwd"}, "path", "is not below a directory"),
        ({"path": "{folder}/\x00"}, "path", "is not below a directory"),
        ({"path": "{folder}/nothing"}, "path", "{folder}/nothing: no such directory"),
        ({"path": "{folder}/empty"}, "path", "{folder}/empty/config.json: no such file"),
        ({"path": "{folder}/stray"}, "path", "its base is not served"),
        ({"path": "{folder}/broken"}, "path", "broken"),
        ({"path": "{folder}/base", "id": "gpt-4o"}, "path", "'gpt-4o' is an alias of another model"),
    ],
)
def test_what_cannot_be_added_is_told_and_changes_nothing(
    server: Server, admin: Admin, folder: Path, body: dict[str, Any], param: str | None, message: str
) -> None:
    if not (folder / "broken").exists():  # a description without its weights: the worker finds out
        shutil.copytree(folder / "newer", folder / "broken")
        content = (folder / "broken" / "model.safetensors").read_bytes()
        (folder / "broken" / "model.safetensors").write_bytes(content[: len(content) // 2])
    before = admin.models()
    filled = {k: v.replace("{folder}", str(folder)) if isinstance(v, str) else v for k, v in body.items()}
    answer = admin.post(filled)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message.replace("{folder}", str(folder)) in error["message"]
    assert admin.models() == before
    assert text_of(complete(server, "one"))


def test_other_methods_are_refused_with_all_that_there_are(make_service: ServiceMaker) -> None:
    service = make_service(admin_key=KEY)
    for path, allowed in (("/admin/models", "GET, HEAD, POST"), ("/admin/models/base", "DELETE")):
        answer = service.request("PUT", path, headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_removing_what_is_not_served_is_not_found(admin: Admin) -> None:
    answer = admin.remove("nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_admin_routes_want_their_own_key(server: Server) -> None:
    assert server.client.get("/admin/models").status_code == 401
    wrong = server.client.get("/admin/models", headers={"Authorization": "Bearer other"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


def test_without_an_admin_key_there_are_no_admin_routes(make_service: ServiceMaker) -> None:
    service = make_service()
    assert service.get("/admin/models").status_code == 404
    assert service.post("/admin/models", {"path": "x"}).json()["error"]["code"] == "unknown_url"


def test_a_worker_that_dies_comes_back_with_the_present_models(server: Server, admin: Admin) -> None:
    assert admin.remove("two").status_code == 200
    assert admin.add("newer").status_code == 200
    assert admin.add("two", id="added").status_code == 200
    before = {name: text_of(complete(server, name)) for name in ("base", "one", "newer", "added")}
    largest = max(server.program.workers, key=lambda worker: worker.memory_info().rss)
    largest.kill()
    poll(lambda: server.client.get("/readyz").status_code == 503, 20, "still ready")
    poll(lambda: server.client.get("/readyz").status_code == 200, 120, "not ready again")
    assert {name: text_of(complete(server, name)) for name in before} == before
    assert complete(server, "two").status_code == 404
