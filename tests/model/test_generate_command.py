"""`groundup generate` on tiny checkpoints: what it prints is what the plain loop generates."""

from pathlib import Path

import pytest
import torch

from groundup import main
from model.adapter_config import AdapterConfig
from model.chat import DEFAULT_TEMPLATE
from model.checkpoint import load_gpt, save_checkpoint
from model.directory import read_checkpoint
from model.generate import generate
from model.generate_command import GenerateConfig, encode_prompt, find_source, run
from model.lora import add_lora
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, llama2


@pytest.mark.parametrize(("name", "shows_prompt"), [("tiny-base", True), ("tiny-chat", False)])
def test_prints_the_text_of_the_plain_loop(
    tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str], name: str, shows_prompt: bool
) -> None:
    path = tiny_checkpoints / name
    config = GenerateConfig(checkpoint=path, prompt="The fox", max_tokens=12, temperature=1.5, top_k=50, seed=4)
    run(config)
    checkpoint, tokenizer = read_checkpoint(path), Tokenizer.from_directory(path)
    params = SamplingParams(max_tokens=12, temperature=1.5, top_k=50, seed=4)
    prompt_ids = encode_prompt(config, find_source(config), tokenizer)
    expected = generate(load_gpt(path), prompt_ids, params, eos_token_ids=checkpoint.eos_token_ids)
    text = tokenizer.decode(expected.output_ids, skip_special=True)
    assert capsys.readouterr().out == ("The fox" if shows_prompt else "") + text + "\n"


def test_an_assistant_sees_a_conversation_and_a_base_model_the_bare_text(tiny_checkpoints: Path) -> None:
    tokenizer = Tokenizer.from_directory(tiny_checkpoints / "tiny-chat")
    asked = GenerateConfig(checkpoint=tiny_checkpoints / "tiny-chat", prompt="Hi <|end|>", system="Be kind.")
    ids = encode_prompt(asked, find_source(asked), tokenizer)
    assert tokenizer.decode(ids) == "<|system|>Be kind.<|end|><|user|>Hi <|end|><|end|><|assistant|>"
    assert ids.count(tokenizer.special_tokens["<|end|>"]) == 2
    empty = GenerateConfig(checkpoint=tiny_checkpoints / "tiny-base")
    assert encode_prompt(empty, find_source(empty), tokenizer) == [tokenizer.eos_id]


def test_a_base_model_gets_the_token_it_expects_and_keeps_the_space_after_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(llama2(), LLAMA2_CONFIG)
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size))
    save_checkpoint(tmp_path / "base", model, tokenizer, model_card="# Random\n")
    config = GenerateConfig(checkpoint=tmp_path / "base", prompt="the fox", max_tokens=40, temperature=0)
    checkpoint = read_checkpoint(config.checkpoint)
    prompt_ids = encode_prompt(config, find_source(config), tokenizer)
    assert prompt_ids == [*tokenizer.bos_ids, *tokenizer.encode("the fox")]
    run(config)
    params = SamplingParams(max_tokens=40, temperature=0)
    output = generate(load_gpt(config.checkpoint), prompt_ids, params, eos_token_ids=checkpoint.eos_token_ids)
    whole = tokenizer.decode([*prompt_ids, *output.output_ids], skip_special=True)
    assert capsys.readouterr().out == whole + "\n"


@pytest.mark.parametrize("own_template", [True, False])
def test_an_adapter_writes_what_its_merged_checkpoint_writes(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str], own_template: bool
) -> None:
    save_checkpoint(tmp_path / "base", make_gpt(make_config("llama")), tokenizer, model_card="# Random\n")
    model = load_gpt(tmp_path / "base")
    adapter = AdapterConfig(rank=2, alpha=64, base=str(tmp_path / "base"))
    add_lora(model, adapter)
    torch.nn.init.normal_(model.get_parameter("h.0.attn.qkv.lora_B.q_proj"))
    template = DEFAULT_TEMPLATE if own_template else None
    save_checkpoint(
        tmp_path / "out", model, tokenizer, adapter=adapter, chat_template=template, model_card="# Random\n"
    )
    asked = ["--prompt", "The fox", "--max-tokens", "16", "--temperature", "0", "--frequency-penalty", "1"]
    texts = []
    for place in ("out", "out/adapter", "base"):
        assert main(["generate", str(tmp_path / place), *asked]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert main(["generate", str(tmp_path / "base"), "--base", str(tmp_path / "out")]) == 2
    assert "is no adapter" in capsys.readouterr().err


def test_what_cannot_be_generated_is_refused(tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tiny_checkpoints / "tiny-spam")]) == 2
    assert "a classifier writes no text" in capsys.readouterr().err
    assert main(["generate", str(tiny_checkpoints / "tiny-base"), "--system", "Be kind."]) == 2
    assert "--system" in capsys.readouterr().err
