import json
import math
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_gpt
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.config.evaluate import EvaluateConfig
from training.data.config import PrepareConfig
from training.data.errors import DataError
from training.data.preparation import prepare
from training.evaluation.command import open_tokens, run
from training.evaluation.text import text_metrics
from training.vocabulary import train_bpe


def test_bits_per_byte_of_an_even_guess_follow_from_the_vocabulary(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama"))
    with torch.no_grad():
        model.ln_f.weight.zero_()  # every logit is 0: each of the 384 tokens is as likely
    text = "The quick brown fox jumps over the lazy dog. " * 9
    metrics = text_metrics(model, [text, text], tokenizer)
    num_tokens = 2 * (len(tokenizer.encode(text)) + 1)
    assert metrics["num_targets"] == num_tokens
    assert metrics["loss"] == pytest.approx(math.log(384), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(384, rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(num_tokens * math.log2(384) / (2 * len(text)), rel=1e-5)


def test_each_token_is_scored_as_if_alone_with_its_context(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2", block_size=16))
    text = "Whenever thunder rolled above those empty hills, seven children counted slowly."
    ids = [tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id]
    nats = 0.0
    for place in range(1, len(ids)):
        start = 0 if place <= 16 else 8 * math.ceil((place - 16) / 8)  # windows start every half context
        logits = model.logits(model(torch.tensor([ids[start:place]])))[0, -1].log_softmax(-1)
        nats -= logits[ids[place]].item()
    assert text_metrics(model, [text], tokenizer)["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_a_base_model_is_scored_on_text(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("The quick brown fox.")
    run(EvaluateConfig(checkpoint=tiny_checkpoints / "tiny-base", data=tmp_path / "a.txt"))
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] > 0


def test_long_text_is_scored_as_one_would_score_it_in_memory(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"The quick brown fox number {i} jumps.\n" * 40 for i in range(3)]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    run(EvaluateConfig(checkpoint=tiny_checkpoints / "tiny-base", data=tmp_path, batch_size=3))
    found = json.loads(capsys.readouterr().out)
    expected = text_metrics(load_gpt(tiny_checkpoints / "tiny-base"), texts, tokenizer)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["num_bytes"] == sum(map(len, texts))
    assert 0 <= found["accuracy"] <= 1
    assert found["bits_per_byte"] == pytest.approx(
        found["loss"] * found["num_targets"] / math.log(2) / found["num_bytes"], rel=1e-9
    )


def test_prepared_texts_are_scored_on_their_held_out_side(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoints / "tiny-base"
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"The quick brown fox number {i} jumps.")
    out = tmp_path / "tokens"
    prepare(PrepareConfig(data=(tmp_path / "texts",), out=out, tokenizer=str(checkpoint), num_workers=1), tokenizer)
    run(EvaluateConfig(checkpoint=checkpoint, data=out))
    both = json.loads(capsys.readouterr().out)
    run(EvaluateConfig(checkpoint=checkpoint, data=out / "valid"))
    assert json.loads(capsys.readouterr().out) == both
    assert 0 < both["num_bytes"] < 20 * 40
    run(EvaluateConfig(checkpoint=checkpoint, data=out / "train"))
    assert json.loads(capsys.readouterr().out)["num_bytes"] > both["num_bytes"]
    with pytest.raises(DataError, match=r"not written with the checkpoint's tokenizer"):
        open_tokens(out, train_bpe(["another vocabulary"], 262))


def test_text_that_is_not_there_is_refused(tmp_path: Path, tiny_checkpoints: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"--data: there is no text in it"):
        run(EvaluateConfig(checkpoint=tiny_checkpoints / "tiny-base", data=tmp_path / "a.txt"))
    with pytest.raises(DataError, match=r"--data: .*b.txt: No such file"):
        run(EvaluateConfig(checkpoint=tiny_checkpoints / "tiny-base", data=tmp_path / "b.txt"))


def test_a_chat_model_is_scored_on_conversations(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text('[{"instruction": "fox?", "output": "dog"}]')
    run(EvaluateConfig(checkpoint=tiny_checkpoints / "tiny-chat", data=tmp_path / "a.json", max_tokens=4))
    assert json.loads(capsys.readouterr().out)["exact_match"] in (0, 1)


def test_a_classifier_is_scored_on_its_labels_only(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoints / "tiny-spam"
    labels = json.loads((checkpoint / "config.json").read_text())["label2id"]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"a {label} text,{label}\n" for label in labels))
    run(EvaluateConfig(checkpoint=checkpoint, data=tmp_path / "a.csv"))
    assert json.loads(capsys.readouterr().out)["num_texts"] == len(labels)
    (tmp_path / "b.csv").write_text("text,label\nx,egg\ny,bacon\n")
    with pytest.raises(DataError, match=r"label 'egg' is none of the classifier's"):
        run(EvaluateConfig(checkpoint=checkpoint, data=tmp_path / "b.csv"))
