"""Score the labels that a classifier gives."""

from collections.abc import Sequence

import torch

from model.classifier import GPTClassifier
from training.evaluation.text import Metrics
from training.loss import Batch


@torch.inference_mode()
def predict(model: GPTClassifier, batches: Sequence[Batch]) -> list[int]:
    """Return the most likely label of each text, by index."""
    model.eval()
    device = model.score.weight.device
    found: list[int] = []
    for batch in batches:
        logits = model(batch["idx"].to(device), batch["lengths"].to(device))
        found += logits.argmax(-1).tolist()
    return found


def label_metrics(predicted: Sequence[int], actual: Sequence[int], num_labels: int) -> Metrics:
    """Return accuracy and macro F1 (the mean of the classes' F1; a class nobody named counts 0)."""
    pairs = list(zip(predicted, actual, strict=True))
    scores = []
    for label in range(num_labels):
        hits = sum(p == a == label for p, a in pairs)
        mentions = sum(p == label for p, _ in pairs) + sum(a == label for _, a in pairs)
        scores.append(2 * hits / mentions if mentions else 0.0)
    accuracy = sum(p == a for p, a in pairs) / len(pairs)
    return {"accuracy": accuracy, "macro_f1": sum(scores) / num_labels, "num_texts": len(pairs)}
