"""The demo from end to end, in miniature."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_gpt
from model.directory import ADAPTER_FOLDER, is_adapter, read_checkpoint
from training.config.demo import DemoConfig
from training.config.shape import ModelShape
from training.demo.command import BASE, CHAT, SPAM, DemoSize, held_out_stories, make, whole
from training.run.folder import OutputError
from training.run.state import TrainerState

TINY = DemoSize(
    model=ModelShape(family="llama", block_size=256, n_layer=1, n_head=2, n_embd=32),
    base_documents=120,
    base_steps=2,
    chat_conversations=700,
    chat_steps=2,
    spam_messages=700,
    spam_reading_steps=2,
    spam_steps=2,
    test_items=1,
    vocab_size=500,
)


@pytest.mark.slow
def test_the_demo_makes_three_checkpoints_and_measures_them(tmp_path: Path) -> None:
    results = make(DemoConfig(out=tmp_path, num_threads=1), TINY)
    kinds = {name: read_checkpoint(tmp_path / name).kind for name in (BASE, CHAT, SPAM)}
    assert kinds == {BASE: "base", CHAT: "chat", SPAM: "classifier"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kinds)
    text, answers, labels = results
    assert list(text.rows) == ["this model", "word 5-gram"]
    assert answers.rows["mean"] == pytest.approx([0, 0, 0], abs=0.2)
    baselines = ["TF-IDF + logistic regression", "naive Bayes", "always the most frequent"]
    assert list(labels.rows) == ["this model", *baselines]
    card = (tmp_path / CHAT / "README.md").read_text()
    assert f"groundup train-demo --seed 123 --num-threads 1 --out {tmp_path} --overwrite" in card
    assert "| plural |" in card


def test_what_is_there_is_not_replaced_without_being_told(tmp_path: Path) -> None:
    (tmp_path / CHAT).mkdir()
    (tmp_path / CHAT / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="--overwrite"):
        make(DemoConfig(out=tmp_path), TINY)


def test_test_stories_are_not_training_stories() -> None:
    told = held_out_stories([], 3)
    assert set(held_out_stories(told, 3)).isdisjoint(told)


def test_a_stopped_run_stops_the_demo() -> None:
    assert whole(TrainerState(step=10)).step == 10
    with pytest.raises(KeyboardInterrupt):
        whole(TrainerState(step=10, is_stopped=True))


@pytest.mark.slow
def test_the_assistant_may_be_the_base_with_an_adapter(tmp_path: Path) -> None:
    make(DemoConfig(out=tmp_path, num_threads=1, lora_rank=2), TINY)
    assert is_adapter(tmp_path / CHAT / ADAPTER_FOLDER)
    assert "--lora-rank 2" in (tmp_path / CHAT / "README.md").read_text()
    base, chat = (load_gpt(tmp_path / name) for name in (BASE, CHAT))
    assert torch.equal(base.wte.weight, chat.wte.weight)
    assert not torch.equal(base.h[0].attn.qkv.weight, chat.h[0].attn.qkv.weight)
