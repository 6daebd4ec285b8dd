import json
from pathlib import Path

import pytest

from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.data.errors import DataError
from training.evaluation.choices import Choice, Question, choice_metrics, choose, read_choices
from training.evaluation.intervals import share_interval

HELLASWAG = {
    "activity_label": "Removing ice",
    "ctx_a": "A man sits [header] on a roof.",
    "ctx_b": "he",
    "endings": ["starts  to pull up.", "is using wrap [title] Then he rests", "falls.", "sings."],
    "label": "1",
}
ARC = {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["1", "2"]}, "answerKey": "2"}
OLD_ARC = {
    "question": {"stem": "Why?", "choices": [{"text": "so", "label": "A"}, {"text": "no", "label": "B"}]},
    "answerKey": "B",
}
PIQA = {"goal": "To open a jar", "sol1": "twist", "sol2": "shout", "label": 0}


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_the_published_formats_are_read(tmp_path: Path) -> None:
    questions = read_choices(write(tmp_path / "a.jsonl", HELLASWAG, ARC, OLD_ARC, PIQA))
    assert questions[0].prompt == "Removing ice: A man sits on a roof. He"
    assert questions[0].choices == ("starts to pull up.", "is using wrap. Then he rests", "falls.", "sings.")
    assert questions[0].answer == 1
    assert questions[1] == questions[2] == Question("Question: Why?\nAnswer:", ("so", "no"), 1)
    assert questions[3] == Question("Question: To open a jar\nAnswer:", ("twist", "shout"), 0)


@pytest.mark.parametrize("answer", [2, "C", "c", "fish"])
def test_ones_own_questions_name_the_answer_by_number_letter_or_text(tmp_path: Path, answer: object) -> None:
    (question,) = read_choices(
        write(tmp_path / "a.jsonl", {"question": "Which?", "choices": ["ham", "egg", "fish"], "answer": answer})
    )
    assert question.answer == 2


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"question": "x", "choices": ["a", "b"], "answer": "z"}, "has the answer 25, and 2 choices"),
        ({"question": "x", "choices": ["a", "b"], "answer": "both"}, "'both', which is none of its choices"),
        ({"question": "x", "choices": ["a"], "answer": 0}, "no two or more choices"),
        ({"question": "x", "choices": ["a", "b"]}, "lacks 'answer'"),
        ({"text": "x"}, "lacks 'question'"),
        ({**HELLASWAG, "label": ""}, "invalid literal"),
        (["x"], "is no object"),
    ],
)
def test_a_record_that_is_no_question_is_refused_by_number(tmp_path: Path, record: object, complaint: str) -> None:
    with pytest.raises(DataError, match=rf"--choices: .*record 2 .*{complaint}.*; give records of HellaSwag"):
        read_choices(write(tmp_path / "a.jsonl", PIQA, record))


def test_choices_are_counted_beside_blind_guesses() -> None:
    questions = [Question("q", ("a", "b", "c", "d"), answer) for answer in (0, 1, 1, 2)]
    chosen = [Choice(0, 0, False), Choice(1, 0, True), Choice(3, 1, False), None]
    metrics = choice_metrics(questions, chosen)
    assert metrics["acc"] == pytest.approx(2 / 3)
    assert metrics["acc_norm"] == pytest.approx(2 / 3)
    assert metrics["guessing"] == 0.25
    assert metrics["commonest"] == pytest.approx(2 / 3)
    assert (metrics["num_cut"], metrics["num_left_out"]) == (1, 1)
    with pytest.raises(DataError, match="no question has answers that fit"):
        choice_metrics(questions, [None] * 4)


def test_a_question_whose_answer_cannot_fit_is_left_out(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama", block_size=32))
    questions = [Question("The quick", ("fox", "dog"), 0), Question("The quick", ("fox " * 50, "dog"), 0)]
    first, second = choose(model, tokenizer, questions)
    assert first is not None
    assert second is None


def test_intervals_of_shares_equal_published_ones() -> None:
    low, high = share_interval(81, 263)  # Newcombe 1998, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = share_interval(0, 20)
    assert (low, round(high, 4)) == (0.0, 0.1611)
