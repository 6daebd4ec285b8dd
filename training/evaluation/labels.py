"""Score the labels that a classifier gives: accuracy, F1, precision and recall by class, confusions, calibration.

It knows neither files nor pictures; those are `label_report`'s and `label_figures`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.classifier import GPTClassifier
from training.data.classification import TextBatches
from training.data.labelled import Marks
from training.evaluation.intervals import share_interval
from training.evaluation.text import Metrics

Numbers = NDArray[np.float64]

NUM_BINS = 10
"""Bins of equal width in which calibration is measured (Guo et al. 2017, section 2)."""


class ClassScores(NamedTuple):
    """How one class fares; None where there is nothing to divide by."""

    precision: float | None
    """Share of the texts given this label that have it."""
    recall: float | None
    """Share of the texts with this label that are given it."""
    f1: float
    """Harmonic mean of both; 0 for a class that nobody named."""
    num_texts: int
    """Texts that have this label."""


class Bin(NamedTuple):
    """Answers of similar confidence."""

    low: float
    high: float
    confidence: float
    """Their mean probability."""
    accuracy: float
    """Share of them that is right."""
    num_answers: int


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """What a classifier said of some texts, and what is true of them."""

    labels: tuple[str, ...]
    is_multi_label: bool
    """Whether a text has any number of labels, instead of exactly one."""
    probabilities: Numbers
    """(texts, labels); rows sum to 1 unless texts have several labels."""
    predicted: Marks
    """(texts, labels): the most likely label, or every label with a probability of at least a half."""
    actual: Marks
    """(texts, labels)."""

    @property
    def num_texts(self) -> int:
        return len(self.actual)

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether every label of a text is right (texts,)."""
        right: NDArray[np.bool_] = (self.predicted == self.actual).all(1)
        return right

    @property
    def accuracy(self) -> float:
        return accuracy(self.predicted, self.actual)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy, given how many texts there are."""
        return share_interval(int(self.is_right.sum()), self.num_texts)

    @property
    def macro_f1(self) -> float:
        return macro_f1(self.predicted, self.actual)

    @property
    def micro_f1(self) -> float:
        """F1 over all pairs of text and label; with one label a text it is the accuracy."""
        hits = int((self.predicted & self.actual).sum())
        mentions = int(self.predicted.sum() + self.actual.sum())
        return 2 * hits / mentions if mentions else 1.0

    @property
    def classes(self) -> dict[str, ClassScores]:
        """How each class fares, by label."""
        return dict(zip(self.labels, class_scores(self.predicted, self.actual), strict=True))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Texts by actual (row) and predicted (column) label; with several labels a text there is no such table."""
        assert not self.is_multi_label
        table = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(table, (self.actual.argmax(1), self.predicted.argmax(1)), 1)
        return table

    @property
    def log_loss(self) -> float:
        """Mean of -log of the probability of the truth, in nats; with several labels a text, of each yes and no."""
        if self.is_multi_label:
            said = np.where(self.actual, self.probabilities, 1 - self.probabilities)
        else:
            said = self.probabilities[self.actual]
        return float(-np.log(np.maximum(said, 1e-12)).mean())

    @property
    def answers(self) -> tuple[Numbers, NDArray[np.bool_]]:
        """Probabilities that were stated, and whether what they were stated of is so.

        Of the chosen label of each text; with several labels a text, of each label.
        """
        if self.is_multi_label:
            return self.probabilities.ravel(), self.actual.ravel()
        return self.probabilities.max(1), self.is_right

    @property
    def calibration(self) -> list[Bin]:
        """Confidence beside accuracy, in the bins that hold any answer."""
        return calibration_bins(*self.answers)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy over the bins, by their counts."""
        bins = self.calibration
        return sum(b.num_answers * abs(b.confidence - b.accuracy) for b in bins) / sum(b.num_answers for b in bins)

    def metrics(self) -> Metrics:
        """Return the measures that are one number."""
        low, high = self.accuracy_interval
        micro = {"micro_f1": self.micro_f1} if self.is_multi_label else {}
        return {
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "macro_f1": self.macro_f1,
            **micro,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "num_texts": self.num_texts,
        }


def measure(
    model: GPTClassifier,
    texts: TextBatches,
    labels: Sequence[str],
    *,
    is_multi_label: bool = False,
    batch_size: int = 32,
) -> LabelMeasures:
    """Let a classifier label some texts."""
    return judge(score(model, texts, batch_size), texts.marks, labels, is_multi_label=is_multi_label)


@torch.inference_mode()
def score(model: GPTClassifier, texts: TextBatches, batch_size: int = 32) -> Numbers:
    """Return the logits of some texts (texts, labels), in their order."""
    model.eval()
    device = model.score.weight.device
    batches, order = texts.by_length(batch_size)
    rows = [
        model(batch["idx"].to(device), batch["lengths"].to(device)).double().cpu()
        for batch in tqdm(batches, desc="label", unit="batch", leave=False, disable=None)
    ]
    logits = torch.empty(len(order), model.num_labels, dtype=torch.float64)
    logits[order] = torch.cat(rows)
    found: Numbers = logits.numpy()
    return found


def judge(logits: Numbers, actual: Marks, labels: Sequence[str], *, is_multi_label: bool = False) -> LabelMeasures:
    """Turn logits (texts, labels) into answers: a softmax over the labels, or a sigmoid of each."""
    if is_multi_label:
        probabilities = 0.5 * (1 + np.tanh(logits / 2))  # the sigmoid, without overflow
        predicted = probabilities >= 0.5
    else:
        weights = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = weights / weights.sum(1, keepdims=True)
        predicted = np.arange(len(labels)) == logits.argmax(1)[:, None]
    return LabelMeasures(tuple(labels), is_multi_label, probabilities, predicted, actual)


def accuracy(predicted: Marks, actual: Marks) -> float:
    """Return the share of texts (texts, labels) whose labels are all right."""
    return float((predicted == actual).all(1).mean())


def macro_f1(predicted: Marks, actual: Marks) -> float:
    """Return the mean of the classes' F1; a class nobody named counts 0."""
    scores = class_scores(predicted, actual)
    return sum(found.f1 for found in scores) / len(scores)


def class_scores(predicted: Marks, actual: Marks) -> list[ClassScores]:
    """Return precision, recall and F1 of each class."""
    hits, said, there = (table.sum(0).tolist() for table in (predicted & actual, predicted, actual))
    return [
        ClassScores(
            precision=hit / named if named else None,
            recall=hit / real if real else None,
            f1=2 * hit / (named + real) if named + real else 0.0,
            num_texts=real,
        )
        for hit, named, real in zip(hits, said, there, strict=True)
    ]


def calibration_bins(confidence: Numbers, is_right: NDArray[np.bool_]) -> list[Bin]:
    """Sort answers into bins of equal width by their confidence; empty bins are left out."""
    places = np.clip((confidence * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    bins = []
    for place in range(NUM_BINS):
        inside = places == place
        if inside.any():
            mean, share = float(confidence[inside].mean()), float(is_right[inside].mean())
            bins.append(Bin(place / NUM_BINS, (place + 1) / NUM_BINS, mean, share, int(inside.sum())))
    return bins
