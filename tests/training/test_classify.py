from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import groundup
from model.checkpoint import load_classifier, load_gpt
from model.directory import read_checkpoint
from model.tokenizer import Tokenizer
from training.classify import build_classifier, compare, run
from training.config.classify import ClassifyConfig
from training.data.errors import DataError
from training.data.label_parts import load_split
from training.data.label_split import Split
from training.data.labelled import Example

TINY = {"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 64}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [f"win prize number {i} now\tspam" for i in range(40)] + [f"see you at {i}\tham" for i in range(60)]
    path = tmp_path / "messages.tsv"
    path.write_text("text\tlabel\n" + "".join(row + "\n" for row in [*rows, rows[0], rows[1]]))
    return path


def make_run(data: Path, **changes: object) -> ClassifyConfig:
    settings = {
        "data": data,
        "out": data.with_name("spam"),
        "model": TINY,
        "steps": 30,
        "vocab_size": 300,
        "warmup_lm_steps": 0,
    }
    return ClassifyConfig.model_validate({**settings, "device": "cpu", "batch_size": 16, **changes})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_texts_become_a_classifier_that_transformers_loads(data: Path, family: str) -> None:
    config = make_run(data, balance="undersample-all", warmup_lm_steps=3, model={**TINY, "family": family})
    run(config)
    checkpoint = read_checkpoint(config.out)
    assert (checkpoint.kind, checkpoint.labels) == ("classifier", ("ham", "spam"))
    ours, theirs = load_classifier(config.out), AutoModelForSequenceClassification.from_pretrained(config.out)
    assert theirs.config.id2label == {0: "ham", 1: "spam"}
    tokenizer = Tokenizer.from_directory(config.out)
    for text in ("win a prize", "see you"):
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.inference_mode():
            assert torch.allclose(ours(ids, torch.tensor([ids.shape[1]])), theirs(ids).logits, atol=1e-4)
    card = (config.out / "README.md").read_text()
    assert "| this model | 100.00% |" in card
    assert "TF-IDF + logistic regression" in card


def test_repeated_texts_are_dropped_and_classes_balanced_on_request(data: Path) -> None:
    as_is = load_split(make_run(data, deduplicate=False))
    assert len(as_is.train + as_is.valid + as_is.test) == 102
    unique = load_split(make_run(data))
    assert len(unique.train + unique.valid + unique.test) == 100
    even = load_split(make_run(data, balance="undersample-all"))
    assert len(even.train + even.valid + even.test) == 80


def test_a_classifier_can_start_from_a_base(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = make_run(data, base=base)
    model = build_classifier(config, Tokenizer.from_directory(base), [], num_labels=3)
    assert model.score.weight.shape[0] == 3
    assert torch.equal(model.gpt.h[1].mlp.down.weight, load_gpt(base).h[1].mlp.down.weight)
    run(config)
    assert (config.out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_accuracy_is_measured_against_the_labels_of_the_test_part(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    tokenizer = Tokenizer.from_directory(base)
    model = build_classifier(make_run(data, base=base), tokenizer, [], num_labels=2)
    train = [Example("win", ("spam",)), Example("see", ("ham",))]
    right = compare(model, Split(train, [], [Example("win", ("spam",))]), ["ham", "spam"], tokenizer)["this model"]
    wrong = compare(model, Split(train, [], [Example("win", ("ham",))]), ["ham", "spam"], tokenizer)["this model"]
    assert right + wrong == 1


def test_one_class_is_refused_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,spam\ny,spam\n")
    assert groundup.main(["classify", "--data", str(tmp_path / "a.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "every label is 'spam'" in capsys.readouterr().err


@pytest.mark.slow
def test_real_spam_is_found_from_scratch(data_dir: Path, tmp_path: Path) -> None:
    """The book's balanced split, the recipe shrunk to seconds; at full length it finds more."""
    config = ClassifyConfig(
        data=data_dir / "sms-spam" / "SMSSpamCollection",
        out=tmp_path / "spam",
        balance="undersample-all",
        deduplicate=False,
        warmup_lm_steps=10,
        steps=40,
        eval_interval=20,
        device="cpu",
    )
    run(config)
    card = (config.out / "README.md").read_text()
    assert "1,046 texts to train on (ham 523, spam 523)" in card
    assert float(card.split("| this model | ")[1].split("%")[0]) > 88
    assert float(card.split("| TF-IDF + logistic regression | ")[1].split("%")[0]) > 88


def test_duplicates_of_the_sms_collection_are_found(data_dir: Path) -> None:
    config = make_run(data_dir / "sms-spam" / "SMSSpamCollection", balance="undersample-all")
    split = load_split(config)
    texts = [example.text for example in split.train + split.valid + split.test]
    assert len(texts) == len(set(texts))


def test_too_few_texts_are_refused(data: Path) -> None:
    data.write_text("text\tlabel\na\tspam\nb\tham\n")
    with pytest.raises(DataError, match="too few"):
        run(make_run(data))
