"""MMLU (Hendrycks et al. 2021): questions of 57 subjects, answered by letter or by the text of the answer.

Prompts and measures are those of lm-evaluation-harness (`mmlu` and `mmlu_continuation`), so that figures compare.
"""

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.evaluation.choices import accuracies, blind_guesses
from training.evaluation.continuations import Pair, Score, encode_pair, score_pairs
from training.evaluation.text import Metrics

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its four answers."""

    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Subject:
    """The questions of one subject, and the worked ones that may stand before each."""

    name: str
    items: tuple[Item, ...]
    examples: tuple[Item, ...] = ()


MEASURES = ("letter", "acc", "acc_norm")
"""By letter; by the text of the answer; by that text's log-probability per character."""


@dataclass(slots=True)
class SubjectResult:
    """How many questions of a subject were answered right, by measure."""

    name: str
    answers: list[int] = field(default_factory=list)
    """The right ones of the questions asked."""
    num_cut: int = 0
    """Prompts that lost their beginning, because they do not fit the model."""
    right: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0))

    def count(self, item: Item, scores: Sequence[Score]) -> None:
        """Count a question by the scores of four letters and four texts."""
        sums = [score.log_prob for score in scores]
        by_length = [total / max(1, len(text)) for total, text in zip(sums[4:], item.choices, strict=True)]
        for measure, values in zip(MEASURES, (sums[:4], sums[4:], by_length), strict=True):
            self.right[measure] += values.index(max(values)) == item.answer
        self.answers.append(item.answer)
        self.num_cut += scores[0].is_cut + any(score.is_cut for score in scores[4:])

    def share(self, measure: str) -> float:
        """Return the share of right answers."""
        return self.right[measure] / len(self.answers)


def read_mmlu(folder: Path, *, limit: int | None = None, flag: str = "--mmlu") -> list[Subject]:
    """Read `test/*_test.csv` of a folder and, for examples, `dev/*_dev.csv`, as published or with a header.

    Args:
        limit: take the first so many questions of each subject; None: all.

    Raises:
        DataError: there are none, or a row is not a question, four answers and which one is right.
    """
    files = sorted((folder / "test").glob("*_test.csv"))
    if not files:
        raise DataError(f"{flag}: {folder}: holds no test/SUBJECT_test.csv")
    subjects = []
    for file in files:
        name = file.name.removesuffix("_test.csv")
        examples = folder / "dev" / f"{name}_dev.csv"
        items = _read_items(file, flag)[:limit]
        subjects.append(Subject(name, items, _read_items(examples, flag) if examples.exists() else ()))
    return subjects


def _read_items(path: Path, flag: str) -> tuple[Item, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise DataError(f"{flag}: {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{flag}: {path}: {error}") from None
    items = []
    for number, row in enumerate(rows, 1):
        if number == 1 and row[-1].strip().lower() == "answer":
            continue
        answer = row[-1].strip().upper()
        if len(row) != 6 or len(answer) != 1 or answer not in "0123" + LETTERS:
            raise DataError(
                f"{flag}: {path}: row {number} is not a question, four answers and which is right (0-3, A-D)"
            )
        items.append(Item(row[0], tuple(row[1:5]), int(answer) if answer.isdigit() else LETTERS.index(answer)))
    if not items:
        raise DataError(f"{flag}: {path}: is empty")
    return tuple(items)


def must_have_examples(subjects: Sequence[Subject], num_examples: int, flag: str = "--mmlu") -> None:
    """Refuse to ask with fewer worked examples than are to stand before each question.

    Raises:
        DataError: naming the first subject that has too few.
    """
    for subject in subjects:
        if len(subject.examples) < num_examples:
            raise DataError(
                f"{flag}: dev/{subject.name}_dev.csv has {len(subject.examples)} worked examples, and {num_examples} "
                "are to stand before each question; add it, or give a smaller --num-fewshot"
            )


def letter_prompt(subject: Subject, item: Item, num_examples: int) -> str:
    """Return the prompt that asks for a letter."""
    head = f"The following are multiple choice questions (with answers) about {_spell(subject)}."
    shown = [f"{_with_letters(each)} {LETTERS[each.answer]}" for each in subject.examples[:num_examples]]
    return "\n\n".join([head, *shown, _with_letters(item)])


def text_prompt(subject: Subject, item: Item, num_examples: int) -> str:
    """Return the prompt that asks for the text of the answer."""
    head = f"The following are questions (with answers) about {_spell(subject)}."
    shown = [f"{_ask(each)} {each.choices[each.answer]}" for each in subject.examples[:num_examples]]
    return "\n\n".join([head, *shown, _ask(item)])


def _spell(subject: Subject) -> str:
    return subject.name.replace("_", " ")


def _with_letters(item: Item) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True)]
    return "\n".join([item.question.strip(), *lines, "Answer:"])


def _ask(item: Item) -> str:
    return f"Question: {item.question.strip()}\nAnswer:"


def ask_mmlu(
    model: GPT, tokenizer: Tokenizer, subjects: Sequence[Subject], *, num_examples: int = 5, batch_size: int = 32
) -> list[SubjectResult]:
    """Count the right answers of each subject, by letter and by the text of the answer.

    A question with an answer that alone is longer than the model's context is left out.
    """
    asked = [
        (result, item, _pairs(subject, item, num_examples, tokenizer))
        for subject, result in ((subject, SubjectResult(subject.name)) for subject in subjects)
        for item in subject.items
    ]
    fitting = [entry for entry in asked if all(pair.fits(model) for pair in entry[2])]
    flat = [pair for _, _, pairs in fitting for pair in pairs]
    scores = score_pairs(model, flat, batch_size=batch_size, title="MMLU")
    for number, (result, item, _) in enumerate(fitting):
        result.count(item, scores[8 * number : 8 * number + 8])
    results = {id(result): result for result, _, _ in asked}
    return list(results.values())


def _pairs(subject: Subject, item: Item, num_examples: int, tokenizer: Tokenizer) -> list[Pair]:
    """Return what is scored of a question: four letters, then four texts."""
    by_letter, by_text = letter_prompt(subject, item, num_examples), text_prompt(subject, item, num_examples)
    return [encode_pair(by_letter, f" {letter}", tokenizer) for letter in LETTERS] + [
        encode_pair(by_text, f" {choice}", tokenizer) for choice in item.choices
    ]


def mmlu_metrics(subjects: Sequence[Subject], results: Sequence[SubjectResult]) -> Metrics:
    """Return accuracy over all questions, the mean over subjects, and what blind guesses reach.

    Raises:
        DataError: no question was asked.
    """
    asked = [result for result in results if result.answers]
    if not asked:
        raise DataError("--mmlu: no question has answers that fit the model's context")
    counts = {name: sum(result.right[name] for result in asked) for name in MEASURES}
    means = {f"{name}_mean_of_subjects": statistics.mean(result.share(name) for result in asked) for name in MEASURES}
    answers = [(4, answer) for result in asked for answer in result.answers]
    return {
        **accuracies(counts, len(answers)),
        **means,
        **blind_guesses(answers),
        "num_subjects": len(asked),
        "num_cut": sum(result.num_cut for result in asked),
        "num_left_out": sum(len(subject.items) for subject in subjects) - len(answers),
    }
