"""Multiple choice by the log-probability of each answer's text: HellaSwag, ARC, PIQA, and questions of one's own.

Prompts and measures are those of lm-evaluation-harness, so that figures compare; files are read as published.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.data.records import read_records
from training.evaluation.continuations import encode_pair, score_pairs
from training.evaluation.intervals import share_interval
from training.evaluation.text import Metrics


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the answers to choose from."""

    prompt: str
    """What the model reads; an answer follows it after a space."""
    choices: tuple[str, ...]
    answer: int
    """Which of the choices is right, from 0."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model chose."""

    by_sum: int
    """The answer whose text is the most likely."""
    by_length: int
    """The answer whose text is the most likely by character, so that long ones have a chance."""
    is_cut: bool
    """Whether the beginning of the prompt was cut off to fit the model."""


def read_choices(path: Path, flag: str = "--choices") -> list[Question]:
    """Read `.jsonl` or `.json` with the records of HellaSwag, ARC or PIQA, or with question, choices and answer.

    Raises:
        DataError: unreadable, empty, or a record that is none of these; it says which.
    """
    questions = []
    for number, record in enumerate(read_records(path, flag), 1):
        try:
            questions.append(_to_question(record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{flag}: {path}: record {number} {reason}; give records of HellaSwag, ARC or PIQA, "
                "or question, choices and answer"
            ) from None
    return questions


def _to_question(record: Any) -> Question:
    if not isinstance(record, dict):
        raise ValueError("is no object")
    if "endings" in record:
        context = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
        endings = [_clean_wikihow(ending) for ending in record["endings"]]
        return _checked(_clean_wikihow(context), endings, int(record["label"]))
    if "sol1" in record:
        return _checked(_ask(record["goal"]), [record["sol1"], record["sol2"]], int(record["label"]))
    question, choices = record["question"], record.get("choices")
    if isinstance(question, dict):  # ARC as first published
        question, choices = question["stem"], question["choices"]
        choices = {"text": [each["text"] for each in choices], "label": [each["label"] for each in choices]}
    if isinstance(choices, dict):
        return _checked(_ask(question), choices["text"], choices["label"].index(record["answerKey"]))
    return _checked(_ask(question), record["choices"], _find(record["answer"], record["choices"]))


def _ask(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _find(answer: Any, choices: Sequence[str]) -> int:
    """Return which choice is meant by its number from 0, its letter or its text."""
    if isinstance(answer, int):
        return answer
    if answer in choices:
        return choices.index(answer)
    if len(answer) == 1 and answer.isalpha():
        return ord(answer.upper()) - ord("A")
    raise ValueError(f"has the answer {answer!r}, which is none of its choices")


def _checked(prompt: str, choices: Sequence[str], answer: int) -> Question:
    if len(choices) < 2 or not all(isinstance(choice, str) and choice for choice in choices):
        raise ValueError("has no two or more choices with text")
    if not 0 <= answer < len(choices):
        raise ValueError(f"has the answer {answer}, and {len(choices)} choices counted from 0")
    return Question(prompt, tuple(choices), answer)


def _clean_wikihow(text: str) -> str:
    """Take out the marks that WikiHow's headings left in HellaSwag, in the harness's way."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def choose(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[Question], *, batch_size: int = 32
) -> list[Choice | None]:
    """Let a model choose the likeliest answer of each question; None where one alone is longer than its context."""
    pairs = [
        [encode_pair(question.prompt, f" {choice}", tokenizer) for choice in question.choices] for question in questions
    ]
    fitting = [pair for each in pairs if all(pair.fits(model) for pair in each) for pair in each]
    scores = iter(score_pairs(model, fitting, batch_size=batch_size, title="choices"))
    chosen: list[Choice | None] = []
    for question, own in zip(questions, pairs, strict=True):
        if not all(pair.fits(model) for pair in own):
            chosen.append(None)
            continue
        found = [next(scores) for _ in own]
        sums = [score.log_prob for score in found]
        means = [score / len(text) for score, text in zip(sums, question.choices, strict=True)]
        is_cut = any(score.is_cut for score in found)
        chosen.append(Choice(sums.index(max(sums)), means.index(max(means)), is_cut))
    return chosen


def choice_metrics(questions: Sequence[Question], chosen: Sequence[Choice | None]) -> Metrics:
    """Return accuracy by summed and by length-normalised log-probability, beside guessing and the commonest answer.

    Raises:
        DataError: nothing was chosen.
    """
    pairs = [(question, choice) for question, choice in zip(questions, chosen, strict=True) if choice is not None]
    if not pairs:
        raise DataError("--choices: no question has answers that fit the model's context")
    right = sum(choice.by_sum == question.answer for question, choice in pairs)
    right_by_length = sum(choice.by_length == question.answer for question, choice in pairs)
    return {
        **accuracies({"acc": right, "acc_norm": right_by_length}, len(pairs)),
        **blind_guesses([(len(question.choices), question.answer) for question, _ in pairs]),
        "num_cut": sum(choice.is_cut for _, choice in pairs),
        "num_left_out": len(questions) - len(pairs),
    }


def accuracies(counts: Mapping[str, int], num_questions: int) -> Metrics:
    """Return the share of right answers by name, each with the ends of its 95% interval."""
    metrics: Metrics = {}
    for name, count in counts.items():
        low, high = share_interval(count, num_questions)
        metrics |= {name: count / num_questions, f"{name}_low": low, f"{name}_high": high}
    return metrics | {"num_questions": num_questions}


def blind_guesses(questions: Sequence[tuple[int, int]]) -> Metrics:
    """Return what guessing and what always giving the commonest answer reach, from (number of choices, answer)."""
    commonest = Counter(answer for _, answer in questions).most_common(1)[0][1]
    return {
        "guessing": sum(1 / num_choices for num_choices, _ in questions) / len(questions),
        "commonest": commonest / len(questions),
    }
