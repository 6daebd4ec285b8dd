import json

import numpy as np
import pytest

from training.evaluation.label_report import LabelReport
from training.evaluation.labels import judge

PNG = b"\x89PNG"


def make_report(*, is_multi_label: bool = False, num_labels: int = 3) -> LabelReport:
    rng = np.random.default_rng(1)
    labels = [f"label {i}" for i in range(num_labels)]
    logits = rng.normal(size=(40, num_labels))
    if is_multi_label:
        actual = rng.random((40, num_labels)) < 0.3
    else:
        actual = np.arange(num_labels) == rng.integers(num_labels, size=40)[:, None]
    measures = judge(logits, actual, labels, is_multi_label=is_multi_label)
    return LabelReport("mail", measures, [f"text | *{i}*\nmore" for i in range(40)], {"guess": actual}, ["From a box."])


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_a_report_is_words_numbers_pictures_and_mistakes(is_multi_label: bool) -> None:
    report = make_report(is_multi_label=is_multi_label)
    files = report.files()
    assert set(files) == {"report.md", "report.json", "confusion.png", "calibration.png", "misclassified.jsonl"}
    assert files["confusion.png"].startswith(PNG)
    assert files["calibration.png"].startswith(PNG)
    text = files["report.md"].decode()
    for part in ("# mail: report", "From a box.", "| guess | 100.00% | 100.00% |", "| label 2 |", "(calibration.png)"):
        assert part in text
    numbers = json.loads(files["report.json"])
    assert numbers["accuracy"] == report.measures.accuracy
    assert numbers["classes"]["label 0"]["num_texts"] == report.measures.actual[:, 0].sum()
    assert ("confusion" in numbers) is not is_multi_label


def test_every_mistake_is_listed_once_the_least_convinced_of_the_truth_first() -> None:
    report = make_report()
    rows = [json.loads(line) for line in report.files()["misclassified.jsonl"].splitlines()]
    assert {row["text"] for row in rows} == {
        text for text, is_right in zip(report.texts, report.measures.is_right, strict=True) if not is_right
    }
    assert [row["probability_of_actual"] for row in rows] == sorted(row["probability_of_actual"] for row in rows)
    assert all(row["actual"] != row["predicted"] for row in rows)


def test_mistakes_of_several_labels_say_all_of_them() -> None:
    report = make_report(is_multi_label=True)
    row = report.mistakes()[0]
    assert row["predicted"] == [label for label, p in row["probabilities"].items() if p >= 0.5]


def test_texts_cannot_break_out_of_their_cells() -> None:
    text = make_report().sections()
    assert "text \\| \\*" in text
    assert "\nmore" not in text


def test_no_mistake_is_said_in_a_word() -> None:
    measures = judge(np.eye(2), np.eye(2, dtype=bool), ["a", "b"])
    report = LabelReport("mail", measures, ["x", "y"])
    assert report.sections().endswith("## Mistakes\n\nNone.\n")
    assert report.files()["misclassified.jsonl"] == b""


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_many_labels_are_drawn_too(is_multi_label: bool) -> None:
    pictures = make_report(is_multi_label=is_multi_label, num_labels=70).pictures()
    assert all(content.startswith(PNG) for content in pictures.values())
