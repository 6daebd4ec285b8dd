"""Score which of two answers a model prefers, by its own probabilities or beside a reference model."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from model.chat import ChatTemplate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.pairs import PreferenceBatches, fitting, render
from training.data.preference import Preference
from training.evaluation.text import Metrics
from training.loss import Batch
from training.machine.totals import Totals
from training.preference_loss import PreferenceLoss, sequence_log_probs


@torch.no_grad()
def loss_metrics(model: GPT, batches: Sequence[Batch], loss: PreferenceLoss) -> Metrics:
    """Return loss, rewards, margin and accuracy of a loss of preference tuning."""
    model.eval()
    device, totals = model.wte.weight.device, Totals()
    for batch in tqdm(batches, desc="evaluate", unit="batch", leave=False, disable=None):
        totals.add(loss(model, {name: tensor.to(device) for name, tensor in batch.items()}))
    return totals.means()


@torch.inference_mode()
def preference_metrics(
    model: GPT,
    preferences: Sequence[Preference],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    reference: GPT | None = None,
    batch_size: int = 32,
) -> Metrics:
    """Return how often, and by how much, a model finds the chosen answer likelier than the rejected one.

    Args:
        reference: model from which the gain is measured, on the same device; None: none.

    Returns:
        `accuracy` and `margin` of the log-probabilities of whole answers, in nats; `accuracy_per_token` and
        `margin_per_token` of their means, which do not favour short answers; with a reference `accuracy_gain` and
        `margin_gain` of what was gained on it; `num_pairs`, and `num_left_out`, which do not fit the context.

    Raises:
        DataError: no pair fits the context.
    """
    model.eval()
    rendered = render(preferences, template)
    pairs, _ = fitting(rendered, model.config.block_size)
    batches = PreferenceBatches(pairs, tokenizer).in_order(batch_size)
    sums: dict[str, float] = {}
    for batch in tqdm(batches, desc="evaluate", unit="batch", leave=False, disable=None):
        idx, targets = (batch[name].flatten(0, 1).to(model.wte.weight.device) for name in ("idx", "targets"))
        log_probs, counts = sequence_log_probs(model, idx, targets)
        compared = {"": log_probs, "_per_token": log_probs / counts}
        if reference is not None:
            compared["_gain"] = log_probs - sequence_log_probs(reference, idx, targets)[0]
        for name, values in compared.items():
            chosen, rejected = values.double().view(-1, 2).unbind(1)
            margins = chosen - rejected
            for key, total in (("accuracy", (margins > 0).sum()), ("margin", margins.sum())):
                sums[key + name] = sums.get(key + name, 0.0) + float(total)
    means = {name: value / len(pairs) for name, value in sums.items()}
    return {**means, "num_pairs": len(pairs), "num_left_out": len(rendered) - len(pairs)}
