import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from model.checkpoint import public_views
from model.classifier import GPTClassifier
from model.public_config import config_to_public
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.loss import (
    IGNORE_INDEX,
    label_loss,
    next_token_loss,
    next_token_scores,
    readable,
    token_byte_lengths,
)


def test_next_token_loss_of_a_masked_batch_is_that_of_its_unmasked_part() -> None:
    model = make_gpt(make_config("llama"))
    idx, targets = torch.randint(384, (2, 12)), torch.randint(384, (2, 12))
    logits = model.logits(model(idx)).log_softmax(-1).detach()
    masked = targets.clone()
    masked[0, :7] = IGNORE_INDEX
    masked[1, 3:] = IGNORE_INDEX
    expected = -sum(float(logits[b, t, masked[b, t]]) for b in range(2) for t in range(12) if masked[b, t] >= 0)
    sums = next_token_loss(model, {"idx": idx, "targets": masked})
    assert sums.count.item() == 5 + 3
    assert math.isclose(sums.loss.item(), expected, rel_tol=1e-5)


def test_scores_are_the_loss_with_accuracy_and_the_bytes_of_the_targets(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2", vocab_size=400))  # padded: the tokenizer has 384
    idx = torch.randint(384, (1, 9))
    targets = model.logits(model(idx)).argmax(-1)
    targets[0, :2] = (targets[0, :2] + 1) % 384
    targets[0, 2] = IGNORE_INDEX
    targets[0, 3] = tokenizer.eos_id
    batch = {"idx": idx, "targets": targets}
    sums = next_token_scores(model, batch, token_byte_lengths(tokenizer, 400))
    assert sums.metrics["accuracy"].item() == 5
    text = tokenizer.decode([i for i in targets[0].tolist() if i not in (IGNORE_INDEX, tokenizer.eos_id)])
    if "\ufffd" not in text:
        assert sums.metrics["num_bytes"].item() == len(text.encode())
    plain = next_token_loss(model, batch)
    assert math.isclose(plain.loss.item(), sums.loss.item(), rel_tol=1e-6)
    assert plain.count.item() == sums.count.item() == 8
    assert plain.metrics == {}
    assert not sums.loss.requires_grad


def test_byte_lengths_of_a_text_s_tokens_add_up_to_its_bytes(tokenizer: Tokenizer) -> None:
    text = "Caf\u00e9 \u2603, na\u00efve boats; 1869."
    lengths = token_byte_lengths(tokenizer, tokenizer.vocab_size)
    ids = torch.tensor(tokenizer.encode(text))
    assert lengths[ids].sum().item() == len(text.encode())
    assert lengths[tokenizer.eos_id] == 0


def test_perplexity_and_bits_per_byte_follow_from_means() -> None:
    means = {"loss": math.log(8), "accuracy": 0.5, "num_bytes": 1.5}  # 3 bits for each token of 1.5 bytes
    assert readable(means) == pytest.approx({"loss": math.log(8), "accuracy": 0.5, "perplexity": 8, "bits_per_byte": 2})
    assert readable({"loss": 1e6}).keys() == {"loss", "perplexity"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_documents_of_one_row_are_scored_as_if_each_had_its_own(family: str) -> None:
    model = make_gpt(make_config(family))
    first, second = torch.randint(384, (1, 7)), torch.randint(384, (1, 5))
    packed = {
        "idx": torch.cat([first[:, :-1], second[:, :-1]], 1),
        "targets": torch.cat([first[:, 1:], second[:, 1:]], 1),
        "positions": torch.tensor([[*range(6), *range(4)]]),
        "documents": torch.tensor([[0] * 6 + [1] * 4]),
    }
    apart = [next_token_loss(model, {"idx": ids[:, :-1], "targets": ids[:, 1:]}) for ids in (first, second)]
    together = next_token_loss(model, packed)
    assert math.isclose(together.loss.item(), sum(sums.loss.item() for sums in apart), rel_tol=1e-5)
    leaking = next_token_loss(model, {name: packed[name] for name in ("idx", "targets", "positions")})
    assert abs(leaking.loss.item() - together.loss.item()) > 0.01


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_places_without_a_target_may_be_left_out_or_not(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_gpt(make_config(family)).double()
    idx, targets = torch.randint(384, (2, 12)), torch.randint(384, (2, 12))
    targets[:, 3:9] = IGNORE_INDEX
    model.zero_grad()
    left_out = next_token_loss(model, {"idx": idx, "targets": targets})
    gradient = torch.autograd.grad(left_out.loss, model.wte.weight)[0]
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    kept = next_token_loss(model, {"idx": idx, "targets": targets})
    assert left_out.count.item() == kept.count.item() == 12
    torch.testing.assert_close(left_out.loss, kept.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(kept.loss, model.wte.weight)[0], gradient, rtol=1e-9, atol=1e-12)


def test_label_loss_ignores_padding() -> None:
    torch.manual_seed(0)
    model = GPTClassifier(make_config("llama"), 3).eval()
    text = torch.randint(384, (1, 5))
    padded = torch.cat([text, torch.randint(384, (1, 9))], dim=1)
    label, lengths = torch.tensor([2]), torch.tensor([5])
    alone = label_loss(model, {"idx": text, "lengths": lengths, "labels": label})
    beside = label_loss(model, {"idx": padded, "lengths": lengths, "labels": label})
    assert math.isclose(alone.loss.item(), beside.loss.item(), rel_tol=1e-6)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_label_loss_is_that_of_transformers(problem: str) -> None:
    torch.manual_seed(0)
    config = make_config("gpt2")
    ours = GPTClassifier(config, 3).double().eval()
    public = AutoConfig.for_model(**config_to_public(config), num_labels=3, pad_token_id=383, problem_type=problem)
    theirs = AutoModelForSequenceClassification.from_config(public).double().eval()
    theirs.load_state_dict(dict(public_views(ours)))
    idx, lengths = torch.randint(383, (4, 9)), torch.tensor([9, 9, 9, 9])
    labels = torch.tensor([0, 2, 1, 1]) if problem.startswith("single") else torch.randint(2, (4, 3)).double()
    sums = label_loss(ours, {"idx": idx, "lengths": lengths, "labels": labels})
    assert (sums.loss / sums.count).item() == pytest.approx(theirs(idx, labels=labels).loss.item(), abs=1e-12)


def test_weights_of_labels_multiply_their_losses_and_leave_the_count() -> None:
    torch.manual_seed(0)
    model = GPTClassifier(make_config("llama"), 3).double().eval()
    idx, lengths = torch.randint(384, (4, 9)), torch.tensor([9, 3, 5, 1])
    labels, weights = torch.tensor([0, 2, 1, 1]), torch.tensor([0.5, 2.0, 0.0, 1.0]).double()
    batch = {"idx": idx, "lengths": lengths, "labels": labels}
    parts = [label_loss(model, {name: tensor[i : i + 1] for name, tensor in batch.items()}).loss for i in range(4)]
    weighted = label_loss(model, {**batch, "weights": weights})
    assert weighted.loss.item() == pytest.approx((torch.stack(parts) * weights).sum().item())
    assert weighted.count.item() == 4
    several = torch.eye(3)[labels].double()
    plain = label_loss(model, {**batch, "labels": several})
    doubled = label_loss(model, {**batch, "labels": several, "weights": 2 * torch.ones(4, 3).double()})
    assert doubled.loss.item() == pytest.approx(2 * plain.loss.item())


def test_a_text_with_several_labels_is_right_if_all_of_them_are() -> None:
    model = GPTClassifier(make_config("llama"), 2).eval()
    idx, lengths = torch.randint(384, (3, 4)), torch.full((3,), 4)
    said = (model(idx, lengths) >= 0).float()
    wrong = said.clone()
    wrong[1, 0] = 1 - wrong[1, 0]
    found = label_loss(model, {"idx": idx, "lengths": lengths, "labels": wrong})
    assert (found.metrics["accuracy"].item(), found.count.item()) == (2, 3)
