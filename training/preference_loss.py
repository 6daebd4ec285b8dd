"""Direct preference optimization: make chosen answers likelier and rejected ones less likely, beside a reference model.

Rafailov et al. 2023, equation 7. A pair is one target; both its answers go through the model in one pass. Where the
reference's log-probabilities come from is `training/reference.py`'s knowledge.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.gpt import GPT
from training.cross_entropy import IGNORE_INDEX, linear_log_probs
from training.loss import Batch, LossSums

LossName = Literal["sigmoid", "sigmoid_norm"]


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """The loss of preference tuning, as a function of model and batch.

    A batch has `idx` and `targets` (B, 2, T), chosen before rejected, with `IGNORE_INDEX` outside the answers, and
    `reference` (B, 2), what the reference model gives `sequence_log_probs`.
    """

    name: LossName = "sigmoid"
    """`sigmoid` compares log-probabilities of whole answers, `sigmoid_norm` their means over an answer's tokens."""
    beta: float = 0.1
    """How much a nat of distance from the reference is worth; small values let the model go far."""
    label_smoothing: float = 0.0
    """Share of pairs taken to be the wrong way round (conservative DPO, Mitchell 2023)."""

    def __call__(self, model: GPT, batch: Batch) -> LossSums:
        """Score the pairs of a batch.

        Returns:
            Metrics `chosen_reward` and `rejected_reward` (beta times the log-ratio to the reference, of whole answers
            or per token as the loss has it), `margin` (their difference) and `accuracy` (margins above 0).
        """
        log_probs, counts = sequence_log_probs(model, batch["idx"].flatten(0, 1), batch["targets"].flatten(0, 1))
        log_ratios = log_probs - batch["reference"].flatten()  # (2 B,)
        if self.name == "sigmoid_norm":
            log_ratios = log_ratios / counts.clamp(min=1)
        is_pair = counts.view(-1, 2).amin(1) > 0  # (B,): rows that fill up a rank's share have no targets
        rewards = (self.beta * log_ratios).view(-1, 2) * is_pair[:, None]
        margins = rewards[:, 0] - rewards[:, 1]
        losses = -(1 - self.label_smoothing) * F.logsigmoid(margins) - self.label_smoothing * F.logsigmoid(-margins)
        chosen, rejected = rewards.detach().sum(0)
        metrics = {
            "chosen_reward": chosen,
            "rejected_reward": rejected,
            "margin": chosen - rejected,
            "accuracy": (margins.detach() > 0).sum(),
        }
        return LossSums((losses * is_pair).sum(), is_pair.sum(), metrics)


def sequence_log_probs(model: GPT, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of the targets of each row (R,), and how many they are (R,).

    Args:
        idx: (R, T), padded on the right; padding changes nothing.
        targets: the next token at each place, `IGNORE_INDEX` where it is given or padding (R, T).
    """
    hidden: Tensor = model(idx)  # (R, T, C)
    is_target = targets != IGNORE_INDEX
    counts = is_target.sum(1)
    weight = model.lm_head.weight
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        found = linear_log_probs(hidden[is_target], weight, targets[is_target])  # prompts need no logits
        rows = is_target.nonzero()[:, 0]
        return found.new_zeros(len(idx)).index_add(0, rows, found), counts
    found = linear_log_probs(hidden.flatten(0, 1), weight, targets.flatten())
    return found.view_as(targets).sum(1), counts
