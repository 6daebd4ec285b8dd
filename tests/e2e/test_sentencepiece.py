"""A real server whose vocabulary is of SentencePiece's kind: streamed text is plain text is decoded ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.tokenizer import StreamDecoder, Tokenizer
from tests.e2e.conftest import Server, start_server

pytestmark = pytest.mark.slow


def streamed(server: Server, path: str, body: dict[str, Any]) -> list[Any]:
    with server.client.stream("POST", path, json={**body, "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
    return [choice for line in lines for choice in json.loads(line)["choices"]]


def test_streamed_and_plain_text_are_equal(llama2_checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(llama2_checkpoint)
    with start_server(llama2_checkpoint.parent, tmp_path / "server.log", llama2_checkpoint.name) as server:
        for seed in range(8):
            common = {
                "model": llama2_checkpoint.name,
                "seed": seed,
                "max_tokens": 60,
                "temperature": 1.5,
                "return_token_ids": True,
                "ignore_eos": True,
            }
            completion = common | {"prompt": "the quick brown"}
            plain = server.client.post("/v1/completions", json=completion).json()["choices"][0]
            decoder = StreamDecoder(tokenizer, opens_text=False)
            text = "".join([decoder.push(id_) for id_ in plain["token_ids"]]) + decoder.flush()
            pieces = streamed(server, "/v1/completions", completion)
            assert "".join(piece["text"] for piece in pieces) == plain["text"] == text
            chat = common | {"messages": [{"role": "user", "content": "the quick brown"}]}
            answer = server.client.post("/v1/chat/completions", json=chat).json()["choices"][0]
            deltas = streamed(server, "/v1/chat/completions", chat)
            content = answer["message"]["content"]
            assert "".join(delta["delta"].get("content") or "" for delta in deltas) == content
            assert content == tokenizer.decode(answer["token_ids"], skip_special=True)
