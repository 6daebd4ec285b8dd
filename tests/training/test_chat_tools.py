import shutil
from pathlib import Path

import pytest
import torch

from model.checkpoint import save_checkpoint
from model.directory import CheckpointError
from model.templates import TEMPLATES, TemplateName
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, llama2
from training.chat_tools import ChatTools, chat_tools
from training.config.instruct import InstructConfig
from training.new_tokens import make_room
from training.vocabulary import train_bpe


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A base that knows no control tokens but the end of a text and padding."""
    tokenizer = train_bpe(["The quick brown fox"], 300, special_tokens=["<|endoftext|>", "<|pad|>"])
    save_checkpoint(tmp_path / "plain", make_gpt(make_config("llama")), tokenizer, model_card="# plain\n")
    return tmp_path / "plain"


def tools_of(base: Path, **settings: object) -> ChatTools:
    return chat_tools(InstructConfig.model_validate({"data": "x.json", "out": "out", "base": base, **settings}))


def test_a_base_gets_our_template_and_ends_with_a_turn(tiny_checkpoints: Path) -> None:
    tools = tools_of(tiny_checkpoints / "tiny-base")
    assert tools.template.source == TEMPLATES["groundup"].source
    assert tools.end_ids == (tools.tokenizer.special_tokens["<|end|>"],) == (tools.tokenizer.eos_id,)


def test_a_chat_model_keeps_its_template_and_all_its_ends(tiny_checkpoints: Path) -> None:
    tools = tools_of(tiny_checkpoints / "tiny-chat")
    end, eos = tools.tokenizer.special_tokens["<|end|>"], tools.tokenizer.special_tokens["<|endoftext|>"]
    assert tools.end_ids == (end, eos)
    assert tools_of(tiny_checkpoints / "tiny-chat", template="alpaca").end_ids == (eos,)


def test_a_classifier_is_no_base(tiny_checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a classifier"):
        tools_of(tiny_checkpoints / "tiny-spam")


@pytest.mark.parametrize("name", ["groundup", "phi3", "chatml"])
def test_a_vocabulary_without_the_template_s_tokens_is_refused_or_gets_them(plain: Path, name: TemplateName) -> None:
    with pytest.raises(CheckpointError, match=r"--template: .* lacks <\|\w+\|>, which template .* --add-tokens"):
        tools_of(plain, template=name)
    tools = tools_of(plain, template=name, add_tokens=True)
    assert tools.template.unknown_tokens() == []
    assert tools.end_ids == (tools.tokenizer.special_tokens[TEMPLATES[name].end_token or ""],)


def test_alpaca_needs_only_the_end_of_a_text(plain: Path) -> None:
    tools = tools_of(plain, template="alpaca")
    assert tools.end_ids == (tools.tokenizer.special_tokens["<|endoftext|>"],)


def test_where_texts_open_with_a_token_so_do_conversations(tmp_path: Path) -> None:
    tokenizer = Tokenizer(llama2(), LLAMA2_CONFIG)
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size))
    save_checkpoint(tmp_path / "llama2", model, tokenizer, model_card="# Random\n")
    tools = tools_of(tmp_path / "llama2", template="alpaca")
    ids = tools.template.encode([{"role": "user", "content": "x"}])
    assert tuple(ids[:1]) == tokenizer.bos_ids
    assert ids.count(tokenizer.bos_ids[0]) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}", r"writes <\|im_start\|>, which is no token"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "ends no answer with a control token"),
    ],
)
def test_a_chat_template_that_does_not_fit_its_tokenizer_is_refused(
    tiny_checkpoints: Path, tmp_path: Path, template: str, message: str
) -> None:
    shutil.copytree(tiny_checkpoints / "tiny-chat", tmp_path / "odd")
    (tmp_path / "odd" / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=message):
        tools_of(tmp_path / "odd")


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_a_model_grows_by_rows_near_the_mean_and_is_otherwise_the_same(kind: str) -> None:
    model = make_gpt(make_config(kind))
    before = torch.get_rng_state()
    larger = make_room(model, 390, seed=1)
    assert torch.equal(before, torch.get_rng_state())  # of fresh weights, too
    assert larger.config.vocab_size == 390
    idx = torch.arange(6)[None]
    with torch.inference_mode():
        old, new = (each.logits(each(idx)) for each in (model, larger))
    assert torch.equal(old, new[..., :384])
    rows = larger.lm_head.weight[384:]
    assert (rows - model.lm_head.weight.mean(0)).norm(dim=1).max() < model.lm_head.weight.norm(dim=1).mean()
    assert len(rows.unique(dim=0)) == 6
    assert torch.equal(rows, make_room(model, 390, seed=1).lm_head.weight[384:])
    assert make_room(model, 384, seed=1) is model
