import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training import cross_entropy
from training.cross_entropy import (
    IGNORE_INDEX,
    cross_entropy_sum,
    linear_cross_entropy,
    linear_log_probs,
    linear_scores,
)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 7 rows of a vocabulary of 50 be the most that is made at once."""
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", 7 * 50 + 13)


def make_case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (23, 8), weight (50, 8) and targets, of which some are ignored; the last chunk is a short one."""
    torch.manual_seed(0)
    hidden = torch.randn(23, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    targets = torch.randint(50, (23,))
    targets[[0, 5, 6, 22]] = IGNORE_INDEX
    return hidden, weight, targets


def test_cross_entropy_equals_hand_worked_numbers() -> None:
    # Odds 1 : 3 and 2 : 2, so the targets have probabilities 3/4 and 1/2.
    logits = torch.tensor([[0.0, math.log(3)], [math.log(2), math.log(2)]])
    loss = cross_entropy_sum(logits, torch.tensor([1, 0]))
    assert math.isclose(loss.item(), math.log(4 / 3) + math.log(2), rel_tol=1e-6)


def test_an_ignored_target_adds_nothing() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, -7.0]])
    loss = cross_entropy_sum(logits, torch.tensor([1, IGNORE_INDEX]))
    assert math.isclose(loss.item(), math.log(4 / 3), rel_tol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_give_the_loss_and_the_gradients_of_the_whole() -> None:
    hidden, weight, targets = make_case()
    whole = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    chunked = linear_cross_entropy(hidden, weight, targets)
    assert "ChunkedCrossEntropy" in str(chunked.grad_fn)
    torch.testing.assert_close(chunked, whole, rtol=1e-14, atol=0)
    for found, expected in zip(
        torch.autograd.grad(3 * chunked, (hidden, weight)),
        torch.autograd.grad(3 * whole, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("small_chunks")
def test_only_the_gradients_that_are_needed_are_made() -> None:
    hidden, weight, targets = make_case()
    expected = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), (hidden, weight))
    (of_hidden,) = torch.autograd.grad(linear_cross_entropy(hidden, weight.detach(), targets), hidden)
    (of_weight,) = torch.autograd.grad(linear_cross_entropy(hidden.detach(), weight, targets), weight)
    assert torch.equal(of_hidden, expected[0])
    assert torch.equal(of_weight, expected[1])


@pytest.mark.usefixtures("small_chunks")
def test_nothing_but_ignored_targets_is_a_loss_of_zero() -> None:
    hidden, weight, targets = make_case()
    loss = linear_cross_entropy(hidden, weight, targets.fill_(IGNORE_INDEX))
    (gradient,) = torch.autograd.grad(loss, weight)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.usefixtures("small_chunks")
def test_autocast_multiplies_in_bfloat16_but_sums_in_float32() -> None:
    hidden, weight, targets = make_case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        whole = cross_entropy_sum(F.linear(hidden, weight), targets)
        chunked = linear_cross_entropy(hidden, weight, targets)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)  # a bfloat16 sum would be off by 1e-3
    assert chunked.item() != linear_cross_entropy(hidden, weight, targets).item()
    for found, expected in zip(
        torch.autograd.grad(chunked, (hidden, weight)), torch.autograd.grad(whole, (hidden, weight)), strict=True
    ):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.usefixtures("small_chunks")
def test_scores_count_the_most_likely_tokens_chunk_by_chunk() -> None:
    hidden, weight, targets = make_case()
    logits = hidden @ weight.T
    right = logits.argmax(-1)[[1, 8, 20]]
    targets[[1, 8, 20]] = right
    scores = linear_scores(hidden, weight, targets)
    torch.testing.assert_close(scores.loss, cross_entropy_sum(logits, targets).detach(), rtol=1e-14, atol=0)
    assert scores.num_correct.item() == (logits.argmax(-1) == targets).sum().item() >= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.usefixtures("small_chunks")
def test_compiled_code_sees_through_the_chunks() -> None:
    hidden, weight, targets = make_case()
    compiled = torch.compile(linear_cross_entropy, fullgraph=True)
    loss = compiled(hidden, weight, targets)
    expected = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for found, wanted in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("small_chunks")
def test_the_log_prob_of_each_target_and_its_gradients_are_those_of_the_whole() -> None:
    hidden, weight, targets = make_case()
    whole = -F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE_INDEX, reduction="none")
    chunked = linear_log_probs(hidden, weight, targets)
    torch.testing.assert_close(chunked, whole, rtol=1e-14, atol=1e-15)
    scale = torch.arange(23.0, dtype=torch.float64)
    for found, expected in zip(
        torch.autograd.grad(chunked @ scale, (hidden, weight)),
        torch.autograd.grad(whole @ scale, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
