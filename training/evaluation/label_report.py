"""What a classifier is worth, as files: a report with tables and pictures, the same in JSON, and its mistakes.

It measures nothing itself; the measures are `labels`', the pictures `label_figures`'.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.data.labelled import Marks
from training.evaluation.label_figures import draw_calibration, draw_confusion
from training.evaluation.labels import LabelMeasures, accuracy, macro_f1

REPORT_FILE = "report.md"
JSON_FILE = "report.json"
CONFUSION_FILE = "confusion.png"
CALIBRATION_FILE = "calibration.png"
MISTAKES_FILE = "misclassified.jsonl"

NUM_SHOWN = 10
"""Mistakes shown in the report."""

LONGEST_SHOWN = 200
"""Characters of a text that the report shows."""

MAX_PAIRS = 20
"""Pairs of confused labels that are listed."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """All that is told of a classifier on some texts."""

    name: str
    """Of the classifier."""
    measures: LabelMeasures
    texts: Sequence[str]
    """In the order of the measures."""
    baselines: Mapping[str, Marks] = field(default_factory=dict)
    """What simple methods say of the same texts (texts, labels), by the methods' names."""
    notes: Sequence[str] = ()
    """Where the texts are from, and what was done to them; sentences."""

    def files(self) -> dict[str, bytes]:
        """Return every file, by name."""
        return {
            REPORT_FILE: f"# {self.name}: report\n\n{self.sections()}".encode(),
            JSON_FILE: (json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n").encode(),
            MISTAKES_FILE: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.mistakes()).encode(),
            **self.pictures(),
        }

    def pictures(self) -> dict[str, bytes]:
        """Return the pictures that `sections` refers to."""
        return {CONFUSION_FILE: draw_confusion(self.measures), CALIBRATION_FILE: draw_calibration(self.measures)}

    def scores(self) -> dict[str, dict[str, float]]:
        """Return accuracy and macro F1 of the classifier and of the simple methods."""
        rows = {"this model": self.measures.predicted, **self.baselines}
        actual = self.measures.actual
        return {
            name: {"accuracy": accuracy(marks, actual), "macro_f1": macro_f1(marks, actual)}
            for name, marks in rows.items()
        }

    def sections(self) -> str:
        """Return the report as markdown, without a title."""
        parts = [
            "\n".join(self.notes),
            self._comparison(),
            "## Classes\n\n" + self._classes(),
            "## Confusions\n\n" + self._confusions(),
            "## Calibration\n\n" + self._calibration(),
            "## Mistakes\n\n" + self._mistakes(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the texts, for programs."""
        measures = self.measures
        return {
            "name": self.name,
            "labels": list(measures.labels),
            "multi_label": measures.is_multi_label,
            **measures.metrics(),
            "compared": self.scores(),
            "classes": {label: found._asdict() for label, found in measures.classes.items()},
            **({} if measures.is_multi_label else {"confusion": measures.confusion.tolist()}),
            "calibration": [found._asdict() for found in measures.calibration],
            "notes": list(self.notes),
        }

    def mistakes(self) -> list[dict[str, Any]]:
        """Return the texts with a wrong label, those first of whose truth the classifier was least convinced."""
        found = self.measures
        truth = np.where(found.actual, found.probabilities, 1 - found.probabilities if found.is_multi_label else 1)
        order = np.argsort(truth.min(1), kind="stable")
        return [self._mistake(int(i)) for i in order if not found.is_right[i]]

    def _mistake(self, i: int) -> dict[str, Any]:
        found = self.measures
        said, true = (
            [label for label, is_so in zip(found.labels, row, strict=True) if is_so]
            for row in (found.predicted[i], found.actual[i])
        )
        if found.is_multi_label:
            sure: dict[str, Any] = {
                "probabilities": dict(zip(found.labels, np.round(found.probabilities[i], 6).tolist(), strict=True))
            }
            return {"text": self.texts[i], "actual": true, "predicted": said, **sure}
        return {
            "text": self.texts[i],
            "actual": true[0],
            "predicted": said[0],
            "probability": round(float(found.probabilities[i].max()), 6),
            "probability_of_actual": round(float(found.probabilities[i][found.actual[i]][0]), 6),
        }

    def _comparison(self) -> str:
        low, high = self.measures.accuracy_interval
        exact = "every label right" if self.measures.is_multi_label else "accuracy"
        rows = [(name, f"{s['accuracy']:.2%}", f"{s['macro_f1']:.2%}") for name, s in self.scores().items()]
        return (
            _table(("", exact, "macro F1"), rows)
            + f"\n\nOn {self.measures.num_texts:,} texts; 95% interval of this model: {low:.1%} to {high:.1%}."
        )

    def _classes(self) -> str:
        rows = [
            (_cell(label), _percent(c.precision), _percent(c.recall), _percent(c.f1), f"{c.num_texts:,}")
            for label, c in self.measures.classes.items()
        ]
        return _table(("label", "precision", "recall", "F1", "texts"), rows)

    def _confusions(self) -> str:
        found = self.measures
        if found.is_multi_label:
            return f"![Labels found, missed and given wrongly]({CONFUSION_FILE})"
        picture = f"![Texts by actual and predicted label]({CONFUSION_FILE})"
        table = found.confusion.copy()
        np.fill_diagonal(table, 0)
        pairs = [divmod(int(place), len(table)) for place in np.argsort(-table, axis=None, kind="stable")]
        rows = [
            (_cell(found.labels[row]), _cell(found.labels[column]), f"{table[row, column]:,}")
            for row, column in pairs[:MAX_PAIRS]
            if table[row, column]
        ]
        return picture + ("\n\n" + _table(("actual", "predicted", "texts"), rows) if rows else "")

    def _calibration(self) -> str:
        rows = [
            (f"{b.low:.0%} to {b.high:.0%}", f"{b.confidence:.1%}", f"{b.accuracy:.1%}", f"{b.num_answers:,}")
            for b in self.measures.calibration
        ]
        return (
            f"![Accuracy by confidence]({CALIBRATION_FILE})\n\n"
            + _table(("confidence", "mean", "right", "answers"), rows)
            + f"\n\nExpected calibration error {self.measures.calibration_error:.4f}, "
            f"log loss {self.measures.log_loss:.4f}."
        )

    def _mistakes(self) -> str:
        mistakes = self.mistakes()
        if not mistakes:
            return "None."
        rows = [
            (_cell(_join(row["actual"])), _cell(_join(row["predicted"])), _cell(row["text"][:LONGEST_SHOWN]))
            for row in mistakes[:NUM_SHOWN]
        ]
        shown = f"the {len(rows)} with the least probability of the truth" if len(rows) < len(mistakes) else "all"
        return f"{len(mistakes):,} in [{MISTAKES_FILE}]({MISTAKES_FILE}); {shown}:\n\n" + _table(
            ("actual", "predicted", "text"), rows
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _cell(text: str) -> str:
    """Make a text fit into one cell, shown as it is: no line breaks, no markup."""
    plain = " ".join(text.split())
    for sign in "\\`*_|<>[]#&":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _join(labels: str | Sequence[str]) -> str:
    return labels if isinstance(labels, str) else ", ".join(labels) or "none"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
