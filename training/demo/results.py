"""What the demo models reach on data they have not seen, beside the baselines, as tables.

It trains nothing but baselines, and chooses nothing: models, texts and seeds come from `demo`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.chat import ChatTemplate
from model.classifier import GPTClassifier
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.baselines import WordNGram
from training.classify import compare
from training.data.label_split import Split
from training.demo import tasks
from training.evaluation.answers import answer
from training.evaluation.text import text_metrics

SPLITS: dict[tasks.Split, str] = {"words": "new words", "templates": "new phrasing", "both": "both new"}
"""What the test holds out, and how a table calls it."""

PASS = 0.85
"""Share of exact answers from which a kind counts as learned."""


@dataclass(frozen=True, slots=True)
class Results:
    """A table of held-out results, and the few of them that belong on a model card."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float]]
    summary: dict[str, float | int | str]

    def markdown(self) -> str:
        head = f"| | {' | '.join(self.columns)} |\n| --- |{' --- |' * len(self.columns)}"
        rows = [f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} |" for name, values in self.rows.items()]
        return "\n".join([head, *rows])

    def table(self) -> str:
        """Return the table as aligned text."""
        width = max(map(len, [self.title, *self.rows]))
        lines = [self.title.ljust(width) + "".join(column.rjust(14) for column in self.columns)]
        for name, values in self.rows.items():
            lines.append(name.ljust(width) + "".join(f"{value:14.3f}" for value in values))
        return "\n".join(lines)


def measure_text(model: GPT, tokenizer: Tokenizer, train: Sequence[str], test: Sequence[str]) -> Results:
    """Compare bits per byte on the test stories with a word 5-gram's that counted the same training texts."""
    model_bits = text_metrics(model, test, tokenizer)["bits_per_byte"]
    ngram = WordNGram(5)
    ngram.fit(train)
    rows = {"this model": [model_bits], "word 5-gram": [ngram.bits_per_byte(test)]}
    summary: dict[str, float | int | str] = {
        f"Bits per byte, held-out stories: {name}": value for name, (value,) in rows.items()
    }
    return Results("held-out stories", ("bits per byte",), rows, summary)


def measure_answers(model: GPT, template: ChatTemplate, tokenizer: Tokenizer, num_items: int, seed: int) -> Results:
    """Count the exact answers of greedy decoding, kind by kind, end of turn included."""
    rows: dict[str, list[float]] = {}
    for kind in tasks.KINDS:
        items = {split: tasks.held_out_tasks(kind, split, num_items, seed) for split in SPLITS}
        conversations = [item.messages() for split in SPLITS for item in items[split]]
        replies = iter(answer(model, conversations, template, tokenizer, end_ids=[tokenizer.eos_id], max_tokens=48))
        rows[kind.name] = [
            sum(
                reply.is_finished and item.is_right(reply.text)
                for item, reply in zip(items[split], replies, strict=False)
            )
            / len(items[split])
            for split in SPLITS
        ]
    summary: dict[str, float | int | str] = {
        f"Exact answers, {name} (mean of {len(rows)} kinds)": f"{_mean([row[i] for row in rows.values()]):.1%}"
        for i, name in enumerate(SPLITS.values())
    }
    easy = _mean([rows[name][0] for name in tasks.EASY_KINDS])
    learned = sum(row[0] >= PASS for row in rows.values())
    summary[f"Exact answers, new words, the {len(tasks.EASY_KINDS)} easiest kinds"] = f"{easy:.1%}"
    summary[f"Kinds with {PASS:.0%} or more on new words"] = f"{learned} of {len(rows)}"
    means = [_mean([row[i] for row in rows.values()]) for i in range(len(SPLITS))]
    return Results("exact answers", tuple(SPLITS.values()), {**rows, "mean": means}, summary)


def measure_labels(model: GPTClassifier, split: Split, labels: Sequence[str], tokenizer: Tokenizer) -> Results:
    """Compare test accuracy with naive Bayes and TF-IDF + logistic regression, trained on the same messages."""
    found = compare(model, split, labels, tokenizer)
    rows = {name: [value] for name, value in found.items()}
    summary: dict[str, float | int | str] = {f"Test accuracy: {name}": f"{value:.1%}" for name, value in found.items()}
    return Results("held-out messages", ("accuracy",), rows, summary)


SAMPLE_QUESTIONS = (
    "Hello!",
    "Who are you?",
    'What is the plural of "wombat"?',
    'Spell "groundup".',
    'What is the past tense of "bake"?',
    "How many meters are 12 kilometers?",
    "Turn this into a question: The owl can see you.",
    "Which number is bigger, 81 or 418?",
    "What is a violin?",
    "Tell me a story about a fox.",
    "What is the capital of France?",
)
"""Shown in the model card, whatever the answers are."""


def sample_answers(model: GPT, template: ChatTemplate, tokenizer: Tokenizer) -> str:
    """Answer the sample questions, as markdown."""
    asked = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": ""}] for question in SAMPLE_QUESTIONS
    ]
    replies = answer(model, asked, template, tokenizer, end_ids=[tokenizer.eos_id], max_tokens=200)
    shown = [reply.text if reply.is_finished else f"{reply.text}..." for reply in replies]
    return "\n".join(f"- {question} **{text}**" for question, text in zip(SAMPLE_QUESTIONS, shown, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
