import math

import torch

from model.classifier import GPTClassifier
from tests.tiny import make_config, make_gpt
from training.loss import IGNORE_INDEX, cross_entropy_sum, label_loss, next_token_loss


def test_cross_entropy_equals_hand_worked_numbers() -> None:
    # Odds 1 : 3 and 2 : 2, so the targets have probabilities 3/4 and 1/2.
    logits = torch.tensor([[0.0, math.log(3)], [math.log(2), math.log(2)]])
    loss = cross_entropy_sum(logits, torch.tensor([1, 0]))
    assert math.isclose(loss.item(), math.log(4 / 3) + math.log(2), rel_tol=1e-6)


def test_an_ignored_target_adds_nothing() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, -7.0]])
    loss = cross_entropy_sum(logits, torch.tensor([1, IGNORE_INDEX]))
    assert math.isclose(loss.item(), math.log(4 / 3), rel_tol=1e-6)


def test_next_token_loss_of_a_masked_batch_is_that_of_its_unmasked_part() -> None:
    model = make_gpt(make_config("llama"))
    idx, targets = torch.randint(384, (2, 12)), torch.randint(384, (2, 12))
    logits = model.logits(model(idx)).log_softmax(-1).detach()
    masked = targets.clone()
    masked[0, :7] = IGNORE_INDEX
    masked[1, 3:] = IGNORE_INDEX
    expected = -sum(float(logits[b, t, masked[b, t]]) for b in range(2) for t in range(12) if masked[b, t] >= 0)
    sums = next_token_loss(model, {"idx": idx, "targets": masked})
    assert sums.count == 5 + 3
    assert math.isclose(sums.loss.item(), expected, rel_tol=1e-5)


def test_accuracy_counts_the_most_likely_tokens() -> None:
    model = make_gpt(make_config("gpt2"))
    idx = torch.randint(384, (1, 6))
    targets = model.logits(model(idx)).argmax(-1)
    targets[0, :2] = (targets[0, :2] + 1) % 384
    sums = next_token_loss(model, {"idx": idx, "targets": targets})
    assert sums.metrics["accuracy"] == 4


def test_label_loss_ignores_padding() -> None:
    torch.manual_seed(0)
    model = GPTClassifier(make_config("llama"), 3).eval()
    text = torch.randint(384, (1, 5))
    padded = torch.cat([text, torch.randint(384, (1, 9))], dim=1)
    label, lengths = torch.tensor([2]), torch.tensor([5])
    alone = label_loss(model, {"idx": text, "lengths": lengths, "labels": label})
    beside = label_loss(model, {"idx": padded, "lengths": lengths, "labels": label})
    assert math.isclose(alone.loss.item(), beside.loss.item(), rel_tol=1e-6)
