"""A server with compiled decode steps: what runs them is never the place where they are compiled."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.checkpoint import save_checkpoint
from model.generate import generate
from model.gpt import GPT
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from tests.e2e.conftest import start_server
from tests.program import poll
from tests.tiny import make_config, make_gpt

PROMPT = "Once upon a time"
KEY = "the-admin-key"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_models_are_compiled_before_they_join_and_again_after_a_crash(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {name: make_gpt(make_config("gpt2"), seed=seed) for name, seed in (("base", 1), ("newer", 9))}
    for name, model in models.items():
        save_checkpoint(tmp_path / name, model, tokenizer, model_card="")
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("TORCH_LOGS", "recompiles")
    monkeypatch.setenv("GROUNDUP_COMPILE", "true")
    log = tmp_path / "log"
    with start_server(tmp_path, log, "base", admin_key_file=tmp_path / "key") as server:

        def answer(model: str) -> str:
            body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
            reply = server.client.post("/v1/completions", json=body)
            assert reply.status_code == 200, reply.text
            text: str = reply.json()["choices"][0]["text"]
            return text

        def answers() -> list[str]:
            """Of each model, alone and among many."""
            with ThreadPoolExecutor(8) as threads:
                return [answer("base"), answer("newer"), *threads.map(answer, ["base", "newer"] * 8)]

        added = server.client.post(
            "/admin/models",
            json={"path": str(tmp_path / "newer")},
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=300,
        )
        assert added.status_code == 200, added.text
        wanted = [text_of(models[name], tokenizer) for name in ("base", "newer")] * 9
        assert answers() == wanted
        assert log.read_text().count("Recompiling function _step") == 2  # each for many rows, beside one

        max(server.program.workers, key=lambda worker: worker.memory_info().rss).kill()
        poll(lambda: server.client.get("/readyz").status_code == 503, 20, "still ready")
        poll(lambda: server.client.get("/readyz").status_code == 200, 300, "not ready again")
        assert answers() == wanted
        assert log.read_text().count("Recompiling function _step") == 4


def text_of(model: GPT, tokenizer: Tokenizer) -> str:
    params = SamplingParams(max_tokens=12, temperature=0.0)
    return tokenizer.decode(
        generate(model, tokenizer.encode(PROMPT), params, eos_token_ids=(tokenizer.eos_id,)).output_ids
    )
