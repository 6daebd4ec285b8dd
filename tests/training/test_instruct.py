import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import groundup
from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.checkpoint import load_gpt, save_checkpoint
from model.directory import CheckpointError, read_checkpoint
from model.templates import TEMPLATES, TemplateName
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.config.instruct import InstructConfig
from training.data.errors import DataError
from training.data.instruction import ConversationBatches, conversation
from training.evaluation.answers import answer, is_exact
from training.instruct import instruct, run
from training.vocabulary import train_bpe

ANIMALS = ["fox", "dog", "cat", "hen", "cow", "owl"]
ANSWER = {"role": "assistant", "content": "y"}
RECORDS = [{"instruction": "Repeat it.", "input": animal, "output": f"A {animal}."} for animal in ANIMALS]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "animals.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A base that knows no control tokens but the end of a text and padding."""
    tokenizer = train_bpe(["The quick brown fox"], 300, special_tokens=["<|endoftext|>", "<|pad|>"])
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size, block_size=320))
    save_checkpoint(tmp_path / "plain", model, tokenizer, model_card="# plain\n")
    return tmp_path / "plain"


def make_run(data: Path, base: Path, **changes: object) -> InstructConfig:
    settings = {"data": data, "base": base, "out": data.with_name("assistant"), "steps": 4, "batch_size": 4}
    small = {"device": "cpu", "answer_tokens": 8, "sample_answers": 0}
    return InstructConfig.model_validate({**settings, **small, **changes})


def responses_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text("utf-8").splitlines()]


def test_a_base_becomes_a_chat_checkpoint_that_transformers_loads(data: Path, tiny_checkpoints: Path) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-base")
    run(config)
    checkpoint = read_checkpoint(config.out)
    assert checkpoint.kind == "chat"
    tokenizer = Tokenizer.from_directory(config.out)
    assert checkpoint.eos_token_ids == (tokenizer.special_tokens["<|end|>"],)
    assert_transformers_agrees(config.out)


@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_tokens_that_are_added_are_in_the_checkpoint_that_transformers_loads(
    data: Path, tmp_path: Path, name: TemplateName, kind: str
) -> None:
    tokenizer = train_bpe(["The quick brown fox"], 300, special_tokens=["<|endoftext|>", "<|pad|>"])
    model = make_gpt(make_config(kind, vocab_size=tokenizer.vocab_size, block_size=320))
    save_checkpoint(tmp_path / "plain", model, tokenizer, model_card="# plain\n")
    config = make_run(data, tmp_path / "plain", template=name, add_tokens=True)
    run(config)
    checkpoint = read_checkpoint(config.out)
    assert checkpoint.config.vocab_size == tokenizer.vocab_size + len(TEMPLATES[name].control_tokens)
    assert checkpoint.kind == "chat"
    assert_transformers_agrees(config.out)


def assert_transformers_agrees(out: Path) -> None:
    tokenizer = Tokenizer.from_directory(out)
    ids = ChatTemplate.from_directory(out, tokenizer).encode(conversation("Hello", "")[:1])
    rendered = AutoTokenizer.from_pretrained(out).apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=True
    )
    assert list(rendered["input_ids"]) == ids
    ours, theirs = load_gpt(out), AutoModelForCausalLM.from_pretrained(out)
    assert theirs.generation_config.eos_token_id in (tokenizer.eos_id, [tokenizer.eos_id])
    with torch.inference_mode():
        assert torch.allclose(ours.logits(ours(torch.tensor([ids]))), theirs(torch.tensor([ids])).logits, atol=1e-4)


def test_a_chat_checkpoint_can_be_taught_further(data: Path, tiny_checkpoints: Path) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-chat")
    run(config)
    kept = tiny_checkpoints / "tiny-chat"
    assert (config.out / "chat_template.jinja").read_bytes() == (kept / "chat_template.jinja").read_bytes()
    assert read_checkpoint(config.out).eos_token_ids == read_checkpoint(kept).eos_token_ids


@pytest.mark.parametrize("pack", [False, True])
def test_a_few_answers_are_learned_by_heart(data: Path, tokenizer: Tokenizer, pack: bool) -> None:
    model = make_gpt(make_config("llama", n_embd=64))
    tokenizer = tokenizer.with_eos("<|end|>")
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    conversations = [conversation("Repeat it.", f"A {animal}.", given=animal) for animal in ANIMALS]
    config = make_run(data, Path("unused"), steps=80, batch_size=1 if pack else 6, pack=pack, optim={"lr": 5e-3})
    batches = ConversationBatches(conversations, template, tokenizer, block_size=128)
    instruct(model, batches, batches, config)
    answers = answer(model, conversations, template, tokenizer, end_ids=[tokenizer.eos_id])
    assert all(map(is_exact, answers, [f"A {animal}." for animal in ANIMALS]))


def test_the_test_part_is_answered_in_a_file_for_judges(data: Path, plain: Path) -> None:
    config = make_run(data, plain, template="alpaca", split="order", valid_fraction=0.15, test_fraction=0.34, steps=40)
    run(config)
    found = responses_of(config.out)
    assert [each["record"] for each in found] == [4, 5]
    question = "Repeat it.\n\n### Input:\nhen"
    assert found[0]["messages"] == [{"role": "user", "content": question}]
    assert found[0]["answer"] == "A hen."
    tokenizer = Tokenizer.from_directory(config.out)
    template = ChatTemplate.from_directory(config.out, tokenizer)
    (again,) = answer(
        load_gpt(config.out),
        [conversation(question, "")],
        *(template, tokenizer),
        end_ids=[tokenizer.eos_id],
        max_tokens=8,
    )
    assert again == (found[0]["response"], found[0]["is_finished"])
    card = (config.out / "README.md").read_text("utf-8")
    for words in ("3 conversations to train on, 1 held out, 2 to test on", "Test answers, ROUGE-L", "> Repeat it."):
        assert words in card


def test_without_a_test_part_the_validation_part_is_answered(data: Path, tiny_checkpoints: Path) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-base", valid_data=data)
    run(config)
    assert [each["record"] for each in responses_of(config.out)] == list(range(1, 7))
    settings = (config.out / "run.toml").read_text()
    assert "valid_fraction" not in settings  # the command of the card repeats the run
    again = ["instruct", "--config", str(config.out / "run.toml"), "--overwrite"]
    assert groundup.main(again) == 0


def test_answers_are_sampled_at_every_evaluation(
    data: Path, tiny_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "training")
    changes = {"valid_fraction": 0.5, "sample_answers": 2, "sample_tokens": 5, "eval_interval": 2}
    config = make_run(data, tiny_checkpoints / "tiny-base", **changes)
    run(config)
    records = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    samples = [record for record in records if record["kind"] == "sample"]
    assert all("perplexity" in record for record in records if record["kind"] == "valid")
    assert [sample["step"] for sample in samples] == [2, 2, 4, 4]
    assert all(sample["right"] == f"A {sample['prompt'].split()[-1]}." for sample in samples)
    assert f"(right: {samples[0]['right']})" in caplog.text


def test_sampled_answers_change_nothing(data: Path, tiny_checkpoints: Path) -> None:
    weights = []
    for number, count in enumerate((0, 2)):
        config = make_run(
            *(data, tiny_checkpoints / "tiny-base"),
            out=data.with_name(f"out-{number}"),
            sample_answers=count,
            sample_temperature=1.0,
            eval_interval=1,
        )
        run(config)
        weights.append((config.out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_conversations_that_are_too_long_are_told_before_the_first_step(
    data: Path, tiny_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"instruction": "Repeat it.", "input": "fox " * 200, "output": "A fox."}
    data.write_text(json.dumps([long, *RECORDS, long]))
    config = make_run(data, tiny_checkpoints / "tiny-base", split="order", valid_fraction=0.4)
    run(config)
    told = [record.getMessage() for record in caplog.records if "longer than the context" in record.getMessage()]
    assert [text.split()[1] for text in told] == ["1", "1"]
    assert [each["record"] for each in responses_of(config.out)] == [5, 6, 7]
    assert "2 longer than the context were left out" in (config.out / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('[{"instruction": "x"}]', "record 1 has no 'output'"),
        (json.dumps([{"instruction": "x " * 200, "output": "y"}] * 4), "no conversation fits the model's context"),
        (json.dumps(RECORDS[:1]), "too few"),
        (json.dumps([{"messages": [{"role": "narrator", "content": "x"}, ANSWER]}] * 4), "record 2: .*narrator"),
    ],
)
def test_unusable_data_is_an_error_before_anything_is_written(
    data: Path, tiny_checkpoints: Path, content: str, message: str
) -> None:
    data.write_text(content)
    with pytest.raises(DataError, match=message):
        run(make_run(data, tiny_checkpoints / "tiny-base"))
    assert not data.with_name("assistant.run").exists()


def test_the_command_line_names_what_is_missing(
    data: Path, plain: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["instruct", "--data", str(data), "--out", str(data.with_name("out"))]
    assert groundup.main([*arguments, "--base", "no/such/base"]) == 2
    assert "no/such/base: no such directory" in capsys.readouterr().err
    assert groundup.main([*arguments, "--base", str(plain)]) == 2
    assert "give --add-tokens to add it, or --template alpaca" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="holds a classifier"):
        run(make_run(data, tiny_checkpoints / "tiny-spam"))
    assert not data.with_name("out.run").exists()


def test_one_setting_of_the_optimizer_leaves_the_others(data: Path) -> None:
    config = make_run(data, Path("base"), optim={"weight_decay": 0.0})
    assert config.optim.lr == make_run(data, Path("base")).optim.lr
