import json
import math
from pathlib import Path
from typing import Any

import pytest

from groundup import UsageError, parse
from model.checkpoint import load_gpt, save_checkpoint
from model.directory import CheckpointError
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.config.evaluate import EvaluateConfig, HarnessSettings
from training.data.config import PrepareConfig
from training.data.errors import DataError
from training.data.preparation import prepare
from training.evaluation.command import run
from training.evaluation.report import ReportError
from training.evaluation.saved_answers import read_saved_answers
from training.evaluation.sections.text import open_tokens
from training.evaluation.text import text_metrics
from training.vocabulary import train_bpe


@pytest.fixture
def evaluate(tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `groundup evaluate` on one of the tiny checkpoints and return what it prints."""

    def begin(name: str, **settings: Any) -> Any:
        run(EvaluateConfig(checkpoint=tiny_checkpoints / name, **settings))
        return json.loads(capsys.readouterr().out)

    return begin


def test_a_base_model_is_scored_on_text(tmp_path: Path, evaluate: Any) -> None:
    (tmp_path / "a.txt").write_text("The quick brown fox.")
    assert evaluate("tiny-base", data=tmp_path / "a.txt")["text"]["bits_per_byte"] > 0


def test_long_text_is_scored_as_one_would_score_it_in_memory(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer, evaluate: Any
) -> None:
    texts = [f"The quick brown fox number {i} jumps.\n" * 40 for i in range(3)]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    found = evaluate("tiny-base", data=tmp_path, batch_size=3)["text"]
    expected = text_metrics(load_gpt(tiny_checkpoints / "tiny-base"), texts, tokenizer)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["num_bytes"] == sum(map(len, texts))
    assert 0 <= found["accuracy"] <= 1
    assert found["bits_per_byte"] == pytest.approx(
        found["loss"] * found["num_targets"] / math.log(2) / found["num_bytes"], rel=1e-9
    )
    first = evaluate("tiny-base", data=tmp_path, limit=1)["text"]
    assert first["num_bytes"] == len(texts[0])


def test_prepared_texts_are_scored_on_their_held_out_side(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer, evaluate: Any
) -> None:
    checkpoint = tiny_checkpoints / "tiny-base"
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i:02d}.txt").write_text(f"The quick brown fox number {i:02d} jumps.")
    out = tmp_path / "tokens"
    prepare(PrepareConfig(data=(tmp_path / "texts",), out=out, tokenizer=str(checkpoint), num_workers=1), tokenizer)
    both = evaluate("tiny-base", data=out)["text"]
    assert evaluate("tiny-base", data=out / "valid")["text"] == both
    assert 0 < both["num_bytes"] < 20 * 40
    train = evaluate("tiny-base", data=out / "train")["text"]
    assert train["num_bytes"] > both["num_bytes"]
    size = len("The quick brown fox number 00 jumps.")
    assert evaluate("tiny-base", data=out / "train", limit=3)["text"]["num_bytes"] == 3 * size
    assert evaluate("tiny-base", data=out / "train", limit=10**6)["text"] == train
    with pytest.raises(DataError, match=r"not written with the checkpoint's tokenizer"):
        open_tokens(out, train_bpe(["another vocabulary"], 262))


def test_text_that_is_not_there_is_refused(tmp_path: Path, evaluate: Any) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"--data: there is no text in it"):
        evaluate("tiny-base", data=tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"--data: .*b.txt: No such file"):
        evaluate("tiny-base", data=tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "The quick brown fox."),
        ("a.jsonl", '{"text": "The quick brown fox.", "id": 3}'),
        ("a.tsv", "label\ttext\nx\tThe quick brown fox.\n"),
    ],
)
def test_a_chat_model_is_scored_on_text_as_a_base_model_is(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer, evaluate: Any, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    expected = text_metrics(load_gpt(tiny_checkpoints / "tiny-chat"), ["The quick brown fox."], tokenizer)
    assert evaluate("tiny-chat", data=tmp_path / name)["text"] == pytest.approx(expected)


def test_a_chat_model_is_scored_on_conversations(tmp_path: Path, evaluate: Any) -> None:
    records = [{"instruction": "fox?", "output": "dog"}, {"instruction": "two?", "output": "mice"}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    found = evaluate("tiny-chat", data=tmp_path / "a.json", max_tokens=4, out=tmp_path / "out")["answers"]
    assert found["exact_match"] == 0
    assert found["num_answers"] == 2
    assert found["loss"] > 0
    saved = read_saved_answers(tmp_path / "out" / "responses.jsonl")
    assert [answer.wanted for answer in saved] == ["dog", "mice"]
    assert saved[0].messages[0]["content"] == "fox?"
    assert (tmp_path / "out" / "rouge-l.png").exists()


def test_an_assistant_is_scored_on_preferences(tmp_path: Path, tiny_checkpoints: Path, evaluate: Any) -> None:
    records = [{"instruction": "fox?", "input": "", "chosen": "dog", "rejected": "The lazy"}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    found = evaluate("tiny-chat", data=tmp_path / "a.json", reference=tiny_checkpoints / "tiny-chat")["preferences"]
    assert found["accuracy"] in (0, 1)
    assert found["margin_gain"] == 0
    assert found["num_pairs"] == 1


def test_a_reference_that_could_not_be_compared_with_is_refused(
    tmp_path: Path, tiny_checkpoints: Path, evaluate: Any, tokenizer: Tokenizer
) -> None:
    question = {"instruction": "fox?", "input": ""}
    (tmp_path / "answers.json").write_text(json.dumps([{**question, "output": "dog"}]))
    (tmp_path / "pairs.json").write_text(json.dumps([{**question, "chosen": "dog", "rejected": "The lazy"}]))
    with pytest.raises(
        DataError, match=r"--reference: an assistant is compared on preferences, which .*answers.json does not hold"
    ):
        evaluate("tiny-chat", data=tmp_path / "answers.json", reference=tiny_checkpoints / "tiny-chat")
    other = train_bpe(["The lazy dog " * 9], 270)
    config = make_config("llama", vocab_size=other.vocab_size)
    save_checkpoint(tmp_path / "other", make_gpt(config), other, model_card="# Other\n")
    with pytest.raises(CheckpointError, match=r"--reference: .*other has another tokenizer"):
        evaluate("tiny-chat", data=tmp_path / "pairs.json", reference=tmp_path / "other")
    short = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size, block_size=8))
    save_checkpoint(tmp_path / "short", short, tokenizer, model_card="# Short\n")
    with pytest.raises(CheckpointError, match=r"--reference: .*short has a shorter context"):
        evaluate("tiny-chat", data=tmp_path / "pairs.json", reference=tmp_path / "short")


def test_worked_examples_that_are_not_there_are_missed(tmp_path: Path, evaluate: Any) -> None:
    for split, rows in (("test", 3), ("dev", 2)):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"high_seas_{split}.csv").write_text("Ship?,a,b,c,d,A\n" * rows)
    assert evaluate("tiny-base", mmlu=tmp_path, num_fewshot=2)["mmlu"]["num_questions"] == 3
    with pytest.raises(DataError, match=r"--mmlu: dev/high_seas_dev.csv has 2 worked examples, and 5 are to stand"):
        evaluate("tiny-base", mmlu=tmp_path)


def test_a_classifier_is_scored_on_its_labels_only(tmp_path: Path, tiny_checkpoints: Path, evaluate: Any) -> None:
    labels = json.loads((tiny_checkpoints / "tiny-spam" / "config.json").read_text())["label2id"]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"a {label} text,{label}\n" for label in labels))
    found = evaluate("tiny-spam", data=tmp_path / "a.csv", out=tmp_path / "out")["labels"]
    assert found["num_texts"] == len(labels)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "(confusion.png)" in report
    assert (tmp_path / "out" / "confusion.png").exists()
    assert "\n# " not in report[2:]
    (tmp_path / "b.csv").write_text("text,label\nx,egg\ny,bacon\n")
    with pytest.raises(DataError, match=r"label 'egg' is none of the classifier's"):
        evaluate("tiny-spam", data=tmp_path / "b.csv")


def test_everything_asked_for_stands_in_one_report(tmp_path: Path, evaluate: Any) -> None:
    (tmp_path / "a.txt").write_text("The quick brown fox.")
    questions = [{"question": "A boat?", "choices": ["small", "wide"], "answer": i % 2} for i in range(3)]
    (tmp_path / "boats.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "words.jsonl").write_text(json.dumps({"text": "The quick brown fox"}))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "high_seas_test.csv").write_text("Ship?,a,b,c,d,A\nMast?,a,b,c,d,B\n")
    found = evaluate(
        "tiny-base",
        data=tmp_path / "a.txt",
        choices=(tmp_path / "boats.jsonl",),
        last_word=tmp_path / "words.jsonl",
        mmlu=tmp_path,
        num_fewshot=0,
        limit=2,
        out=tmp_path / "out",
    )
    assert list(found) == ["text", "mmlu", "choices", "last_word"]
    assert found["choices"]["num_questions"] == 2
    assert found["last_word"]["num_questions"] == 1
    assert found["mmlu"]["num_subjects"] == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sections"]["text"]["figures"] == found["text"]
    assert report["sections"]["mmlu"]["tables"][0]["rows"][0]["subject"] == "high seas"
    text = (tmp_path / "out" / "report.md").read_text()
    for name in ("mmlu.png", "choices.png"):
        assert f"({name})" in text
        assert (tmp_path / "out" / name).exists()


@pytest.mark.filterwarnings("ignore")  # the harness and what it imports warn of many things
def test_tasks_of_the_harness_stand_in_the_report(tmp_path: Path, evaluate: Any) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"q": "The quick", "a": ["fox", "dog"], "right": 1}))
    (tmp_path / "foxes.yaml").write_text(
        f"task: foxes\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'data.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{a}}'\n"
        "doc_to_target: '{{right}}'\nmetric_list: [{metric: acc}]\n"
    )
    harness = HarnessSettings(tasks=("foxes",), folder=tmp_path)
    found = evaluate("tiny-base", harness=harness, out=tmp_path / "out")["harness"]
    assert found["foxes acc"] in (0, 1)
    chat = evaluate("tiny-chat", harness=harness.model_copy(update={"chat": True}))["harness"]
    assert chat["foxes acc"] in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--data: required, or one of --mmlu"),
        (["--reference", "b"], "--data: required"),
        (["--mmlu", "m", "--reference", "b"], "--reference: needs --data"),
        (["--choices", "c.jsonl", "--num-fewshot", "5"], "--num-fewshot: only --mmlu and --harness.tasks"),
        (["--data", "d.txt", "--harness.chat"], "--harness.tasks: required for the other settings"),
        (["--harness.tasks", "piqa", "--harness.files", "arc=x"], "--harness.files: arc is none of --harness.tasks"),
    ],
)
def test_settings_that_measure_nothing_are_refused(arguments: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse(EvaluateConfig, ["some", *arguments], prog="evaluate")


def test_files_for_tasks_are_given_by_name() -> None:
    flags = ["some", "--harness.tasks", "piqa", "--harness.tasks", "arc_easy", "--harness.files", "piqa=p.jsonl"]
    harness = parse(EvaluateConfig, flags, prog="evaluate").harness
    assert harness.tasks == ("piqa", "arc_easy")
    assert harness.files == {"piqa": Path("p.jsonl")}


def test_measures_of_language_models_refuse_a_classifier(tmp_path: Path, evaluate: Any) -> None:
    with pytest.raises(CheckpointError, match=r"--last-word: .*holds a classifier"):
        evaluate("tiny-spam", last_word=tmp_path / "a.jsonl")
    with pytest.raises(CheckpointError, match=r"--harness.chat: .*has no chat template"):
        evaluate("tiny-base", harness=HarnessSettings(tasks=("x",), chat=True))


def test_a_report_does_not_replace_the_answers_of_a_checkpoint(tiny_checkpoints: Path, evaluate: Any) -> None:
    with pytest.raises(ReportError, match=r"--out: .*tiny-chat holds a checkpoint"):
        evaluate("tiny-chat", data=Path("not read yet"), out=tiny_checkpoints / "tiny-chat")
