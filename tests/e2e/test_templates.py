"""Assistants of every named template, trained and then served: the prompts on the wire are those of training."""

import json
from pathlib import Path

import pytest

from model.chat import ChatTemplate
from model.checkpoint import save_checkpoint
from model.templates import TEMPLATES, input_heading
from model.tokenizer import Tokenizer
from tests.e2e.conftest import start_server
from tests.tiny import make_config, make_gpt
from training.config.instruct import InstructConfig
from training.data.instruction import read_conversations, to_rows
from training.instruct import run
from training.vocabulary import train_bpe

pytestmark = pytest.mark.slow

RECORDS = [
    {"instruction": "Name it.", "input": "a red animal", "output": '"Fox", he said.'},
    {"instruction": "Say <|end|> and ### Response:", "input": "", "output": "<|user|>No"},
    {"instruction": "  Count \n", "input": "\n1 2", "output": " 3\n\n"},
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Quick?"},
            {"role": "assistant", "content": '"Brown".'},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "'Lazy'."},
        ]
    },
]


def test_what_is_served_is_what_was_trained_on(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(RECORDS))
    tokenizer = train_bpe(
        ['Response:"Fox" Response:"Brown" Name it'] * 9, 330, special_tokens=["<|endoftext|>", "<|pad|>"]
    )
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size, block_size=384, n_embd=64))
    save_checkpoint(tmp_path / "base", model, tokenizer, model_card="# Random\n")
    folder = tmp_path / "assistants"
    for name in TEMPLATES:
        settings = {"template": name, "add_tokens": True, "steps": 60, "batch_size": 4, "optim": {"lr": 6e-3}}
        files = {"data": data, "valid_data": data, "base": tmp_path / "base", "out": folder / name}
        run(
            InstructConfig.model_validate(
                {**settings, **files, "device": "cpu", "sample_answers": 0, "answer_tokens": 32}
            )
        )

    with start_server(folder, tmp_path / "server.log", max_tokens_policy="clamp") as server:
        for name in TEMPLATES:
            own = Tokenizer.from_directory(folder / name)
            template = ChatTemplate.from_directory(folder / name, own)
            responses = [json.loads(line) for line in (folder / name / "responses.jsonl").read_text().splitlines()]
            for messages, response in zip(
                read_conversations(data, heading=input_heading(template.source)), responses, strict=True
            ):
                asked = {"model": name, "messages": messages[:-1]}
                served = server.client.post("/tokenize", json=asked).json()["tokens"]
                row = to_rows(template, messages)[-1]
                assert row.ids[: len(served)] == served, name
                assert sum(row.is_target[len(served) :]) == len(row.ids) - len(served)
                body = {**asked, "temperature": 0, "max_tokens": 32}
                answer = server.client.post("/v1/chat/completions", json=body).json()
                assert answer["usage"]["prompt_tokens"] == len(served)
                (choice,) = answer["choices"]
                assert choice["message"]["content"] == response["response"]
                assert choice["finish_reason"] == ("stop" if response["is_finished"] else "length")
            right = sum(each["response"] == each["answer"] for each in responses)
            assert right == 4, name  # learned by heart: it says what it should, and stops where it should
