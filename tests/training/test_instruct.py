import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import groundup
from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.checkpoint import load_gpt, save_checkpoint
from model.directory import CheckpointError, read_checkpoint
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.config.instruct import InstructConfig
from training.data.errors import DataError
from training.data.instruction import conversation
from training.evaluation.answers import answer, exact_match
from training.instruct import instruct, run, split_conversations
from training.vocabulary import train_bpe

ANIMALS = ["fox", "dog", "cat", "hen", "cow", "owl"]
RECORDS = [{"instruction": "Repeat it.", "input": animal, "output": f"A {animal}."} for animal in ANIMALS]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "animals.json"
    path.write_text(json.dumps(RECORDS))
    return path


def make_run(data: Path, base: Path, **changes: object) -> InstructConfig:
    settings = {"data": data, "base": base, "out": data.with_name("assistant"), "steps": 4, "batch_size": 4}
    return InstructConfig.model_validate({**settings, "device": "cpu", **changes})


def test_a_base_becomes_a_chat_checkpoint_that_transformers_loads(data: Path, tiny_checkpoints: Path) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-base")
    run(config)
    checkpoint = read_checkpoint(config.out)
    assert checkpoint.kind == "chat"
    tokenizer = Tokenizer.from_directory(config.out)
    assert checkpoint.eos_token_ids == (tokenizer.special_tokens["<|end|>"],)
    ids = ChatTemplate.from_directory(config.out, tokenizer).encode(conversation("Hello", "")[:1])
    rendered = AutoTokenizer.from_pretrained(config.out).apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=True
    )
    assert list(rendered["input_ids"]) == ids
    ours, theirs = load_gpt(config.out), AutoModelForCausalLM.from_pretrained(config.out)
    with torch.inference_mode():
        assert torch.allclose(ours.logits(ours(torch.tensor([ids]))), theirs(torch.tensor([ids])).logits, atol=1e-4)


def test_a_chat_checkpoint_can_be_taught_further(data: Path, tiny_checkpoints: Path) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-chat")
    run(config)
    kept = tiny_checkpoints / "tiny-chat" / "chat_template.jinja"
    assert (config.out / "chat_template.jinja").read_bytes() == kept.read_bytes()


def test_a_few_answers_are_learned_by_heart(data: Path, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama", n_embd=64))
    tokenizer = tokenizer.with_eos("<|end|>")
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    conversations = [conversation("Repeat it.", f"A {animal}.", given=animal) for animal in ANIMALS]
    config = make_run(data, Path("unused"), steps=80, batch_size=6, optim={"lr": 5e-3})
    instruct(model, conversations, conversations, template, tokenizer, config)
    answers = answer(model, conversations, template, tokenizer, end_ids=[tokenizer.eos_id])
    assert exact_match(answers, [f"A {animal}." for animal in ANIMALS]) == 1


def test_a_split_shares_nothing_and_loses_nothing() -> None:
    conversations = [conversation(f"Question {i}", "x") for i in range(20)]
    train, valid = split_conversations(conversations, 0.2, seed=0)
    assert (len(train), len(valid)) == (16, 4)
    assert all(messages in train or messages in valid for messages in conversations)


def test_a_single_conversation_is_too_few() -> None:
    with pytest.raises(DataError, match="too few"):
        split_conversations([conversation("x", "y")], 0.1, seed=0)


def test_a_classifier_is_no_base(data: Path, tiny_checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a classifier"):
        run(make_run(data, tiny_checkpoints / "tiny-spam"))


def test_a_vocabulary_without_the_template_s_tokens_is_refused(data: Path, tmp_path: Path) -> None:
    plain = train_bpe(["The quick brown fox"], 300, special_tokens=["<|endoftext|>", "<|pad|>"])
    save_checkpoint(tmp_path / "plain", make_gpt(make_config("llama")), plain, model_card="# plain\n")
    with pytest.raises(CheckpointError, match=r"lacks <\|user\|>"):
        run(make_run(data, tmp_path / "plain"))


def test_the_command_line_names_a_missing_base(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(data), "--base", "no/such/base", "--out", str(data.with_name("out"))]
    assert groundup.main(["instruct", *arguments]) == 2
    assert "no/such/base: no such directory" in capsys.readouterr().err
    assert not data.with_name("out.run").exists()
