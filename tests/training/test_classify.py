import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification

import groundup
from model.checkpoint import load_classifier, load_gpt
from model.directory import read_checkpoint
from model.tokenizer import Tokenizer
from training.classify import build_classifier, compare, run
from training.config.classify import ClassifyConfig
from training.data.errors import DataError
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
    assert "perplexity" not in (config.out / "metrics.jsonl").read_text()
    assert "TF-IDF + logistic regression" in card


def test_a_classifier_is_evaluated_as_it_read_in_training(data: Path) -> None:
    held_out = data.with_name("held-out.tsv")
    rows = [f"win prize number {i} now, said {i}\tspam\nthen see you at {i} or so\tham\n" for i in range(100, 120)]
    held_out.write_text("text\tlabel\n" + "".join(rows))
    config = make_run(data, test_data=held_out, cut="start", max_length=6)
    run(config)
    told = json.loads((config.out / "report.json").read_text())
    assert told["notes"][-1] == "Of 40 texts only the last 6 tokens were read."
    assert groundup.main(["evaluate", str(config.out), "--data", str(held_out), "--out", str(data.with_name("r"))]) == 0
    tokenizer = Tokenizer.from_directory(config.out)
    assert (tokenizer.max_length, tokenizer.truncation_side) == (6, "left")
    again = json.loads((data.with_name("r") / "report.json").read_text())
    assert again["sections"]["labels"]["figures"]["log_loss"] == pytest.approx(told["log_loss"], rel=1e-6)
    assert "only the last 6 tokens were read" in (data.with_name("r") / "report.md").read_text()


def test_validation_texts_need_not_have_every_class_that_is_weighed(data: Path) -> None:
    valid = data.with_name("valid.tsv")
    valid.write_text("text\tlabel\n" + "".join(f"until {i} then\tham\n" for i in range(4)))
    config = make_run(data, valid_data=valid, balance="weights", steps=2)
    run(config)
    assert read_checkpoint(config.out).labels == ("ham", "spam")


def test_a_classifier_can_start_from_a_base(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = make_run(data, base=base)
    model = build_classifier(config, Tokenizer.from_directory(base), [], num_labels=3)
    assert model.score.weight.shape[0] == 3
    assert torch.equal(model.gpt.h[1].mlp.down.weight, load_gpt(base).h[1].mlp.down.weight)
    run(config)
    assert (config.out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_the_head_alone_can_be_trained(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = make_run(data, base=base, trainable="head", steps=5)
    run(config)
    assert torch.equal(load_classifier(config.out).gpt.h[1].mlp.down.weight, load_gpt(base).h[1].mlp.down.weight)
    run(make_run(data, base=base, trainable=1, steps=5, overwrite=True))
    last = load_classifier(config.out).gpt.h
    assert torch.equal(last[0].mlp.down.weight, load_gpt(base).h[0].mlp.down.weight)
    assert not torch.equal(last[1].mlp.down.weight, load_gpt(base).h[1].mlp.down.weight)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's business
def test_adapters_are_trained_and_written_beside_the_merged_model(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-chat"
    config = make_run(data, base=base, lora={"rank": 2}, steps=5)
    run(config)
    assert load_classifier(config.out).score.weight.shape[0] == 2
    theirs = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, pad_token_id=None)
    adapted = PeftModel.from_pretrained(theirs, config.out / "adapter").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        ours = load_classifier(config.out)(ids, torch.tensor([4]))
        assert torch.allclose(ours, adapted(ids[:1]).logits, atol=1e-5)


def test_a_base_may_read_the_texts_before_their_classes_are_learned(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = make_run(data, base=base, trainable="head", warmup_lm_steps=3, steps=3)
    run(config)
    assert not torch.equal(load_classifier(config.out).gpt.h[1].mlp.down.weight, load_gpt(base).h[1].mlp.down.weight)


def test_a_run_ends_with_a_report_that_the_card_points_to(data: Path) -> None:
    config = make_run(data)
    run(config)
    report = json.loads((config.out / "report.json").read_text())
    assert report["num_texts"] == 20
    assert set(report["compared"]) == {
        "this model",
        "TF-IDF + logistic regression",
        "naive Bayes",
        "always the most frequent",
    }
    assert report["compared"]["always the most frequent"]["accuracy"] == 0.6
    card = (config.out / "README.md").read_text()
    assert "[report.md](report.md)" in card
    assert "2 that repeat an earlier one but for letter case and white space were dropped." in card
    text = (config.out / "report.md").read_text()
    assert "| ham | " in text
    for name in ("confusion.png", "calibration.png", "misclassified.jsonl"):
        assert (config.out / name).exists()
        assert f"({name})" in text or name == "misclassified.jsonl"


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Texts with any of two labels, told by a word each."""
    rows = []
    for i in range(80):
        labels = [name for bit, name in ((1, "money"), (2, "travel")) if i % 4 & bit]
        words = {"money": "pay the bill", "travel": "board the train"}
        rows.append({"text": " and ".join(words[label] for label in labels) + f" on day {i}", "labels": labels})
    path = tmp_path / "tags.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_may_have_several_labels(tagged: Path) -> None:
    config = make_run(tagged, multi_label=True, balance="weights", steps=150)
    run(config)
    assert read_checkpoint(config.out).is_multi_label
    assert AutoModelForSequenceClassification.from_pretrained(config.out).config.problem_type.startswith("multi_label")
    report = json.loads((config.out / "report.json").read_text())
    assert report["multi_label"]
    assert report["micro_f1"] > 0.8
    assert "any number of these labels: money, travel" in (config.out / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_label": True, "balance": "undersample"}, "--balance: texts with several labels"),
        ({"label_names": ("spam",)}, "is no OLD=NEW"),
        ({"trainable": "head"}, "--trainable: without --base"),
        ({"base": "b", "lora": {"rank": 2}, "warmup_lm_steps": 5}, "--warmup-lm-steps: would change the base"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "must leave something to train on"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(data: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_run(data, **changes)


def test_what_the_base_does_not_have_is_refused_before_anything_trains(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    with pytest.raises(ValueError, match=r"--trainable: 3 blocks, but the model has 2"):
        run(make_run(data, base=base, trainable=3, warmup_lm_steps=10**6))
    with pytest.raises(ValueError, match=r"--max-length: 999 tokens, but the model's context is 128"):
        run(make_run(data, base=base, max_length=999, warmup_lm_steps=10**6))


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


def test_too_few_texts_are_refused(data: Path) -> None:
    data.write_text("text\tlabel\na\tspam\nb\tham\n")
    with pytest.raises(DataError, match="too few"):
        run(make_run(data))
