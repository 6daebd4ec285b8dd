import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from model.classifier import GPTClassifier
from model.tokenizer import Tokenizer
from tests.tiny import make_config
from training.data.classification import TextBatches
from training.data.labelled import Example
from training.evaluation.labels import LabelMeasures, calibration_bins, judge, measure, score

LABELS = ("a", "b", "c")


def random_measures(count: int = 200, *, is_multi_label: bool = False) -> LabelMeasures:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 3)) * 2
    if is_multi_label:
        actual = rng.random((count, 3)) < [0.5, 0.2, 0.7]
    else:
        actual = np.arange(3) == rng.integers(3, size=count)[:, None]
    return judge(logits, actual, LABELS, is_multi_label=is_multi_label)


def test_measures_equal_hand_worked_numbers() -> None:
    said, true = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = judge(np.eye(3)[said], np.eye(3, dtype=bool)[true], LABELS)
    assert found.accuracy == 0.75
    assert found.macro_f1 == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert found.classes["a"] == (0.5, 1.0, pytest.approx(2 / 3), 1)
    assert found.classes["c"] == (None, None, 0.0, 0)
    assert found.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_measures_equal_those_of_scikit_learn() -> None:
    found = random_measures()
    said, true = found.predicted.argmax(1), found.actual.argmax(1)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(true, said)
    for i, scores in enumerate(found.classes.values()):
        assert scores == pytest.approx((precision[i], recall[i], f1[i], support[i]))
    assert found.accuracy == pytest.approx(oracle.accuracy_score(true, said))
    assert found.macro_f1 == pytest.approx(oracle.f1_score(true, said, average="macro"))
    assert found.log_loss == pytest.approx(oracle.log_loss(true, found.probabilities))
    assert np.array_equal(found.confusion, oracle.confusion_matrix(true, said))


def test_measures_of_several_labels_equal_those_of_scikit_learn() -> None:
    found = random_measures(is_multi_label=True)
    said, true = found.predicted, found.actual
    assert found.accuracy == pytest.approx(oracle.accuracy_score(true, said))
    assert found.macro_f1 == pytest.approx(oracle.f1_score(true, said, average="macro"))
    assert found.micro_f1 == pytest.approx(oracle.f1_score(true, said, average="micro"))
    assert found.log_loss == pytest.approx(oracle.log_loss(true.ravel(), found.probabilities.ravel()))
    assert np.array_equal(found.predicted, found.probabilities >= 0.5)
    assert found.metrics()["num_texts"] == 200


def test_calibration_compares_confidence_with_what_came_true() -> None:
    bins = calibration_bins(np.array([0.95, 1.0, 0.62, 0.0]), np.array([True, False, True, False]))
    assert bins == [(0.0, 0.1, 0.0, 0.0, 1), (0.6, 0.7, 0.62, 1.0, 1), (0.9, 1.0, pytest.approx(0.975), 0.5, 2)]
    sure = judge(np.array([[0.0, 50.0], [0.0, 50.0]]), np.array([[False, True], [True, False]]), ("a", "b"))
    assert sure.calibration_error == pytest.approx(0.5)


def test_a_tie_goes_to_the_lowest_label_and_large_logits_do_not_overflow() -> None:
    found = judge(np.array([[1.0, 1.0, 0.0], [1e4, -1e4, 0.0]]), np.zeros((2, 3), dtype=bool), LABELS)
    assert found.predicted.argmax(1).tolist() == [0, 0]
    assert found.probabilities[1].tolist() == [1.0, 0.0, 0.0]
    several = judge(np.array([[1e4, -1e4, 0.0]]), np.zeros((1, 3), dtype=bool), LABELS, is_multi_label=True)
    assert several.probabilities.tolist() == [[1.0, 0.0, 0.5]]


def test_scores_are_in_the_order_of_the_texts_whatever_the_batches(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = GPTClassifier(make_config("llama"), 3).eval()
    examples = [Example("fox jumps " * (1 + i * 7 % 5), (LABELS[i % 3],)) for i in range(7)]
    texts = TextBatches(examples, LABELS, tokenizer, max_length=99)
    with torch.no_grad():
        alone = [model(torch.tensor([ids]), torch.tensor([len(ids)]))[0].tolist() for ids in texts.ids]
    for batch_size in (1, 3, 32):
        assert np.allclose(score(model, texts, batch_size), alone, atol=1e-6)
    assert measure(model, texts, LABELS).actual.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
