"""The losses of preference tuning: against numbers worked by hand, under padding and cutting, and beside trl."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.chat import ChatTemplate
from model.checkpoint import load_gpt
from model.gpt import GPT
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training import cross_entropy
from training.cross_entropy import IGNORE_INDEX
from training.data.batches import share
from training.data.pairs import Pair, PreferenceBatches, render
from training.data.preference import Preference
from training.loss import Batch, LossSums
from training.preference_loss import LossName, PreferenceLoss, sequence_log_probs
from training.trainer import cut

PAIRS = [
    Pair(1, [5, 6, 7], [8, 9, 2], [10, 2]),
    Pair(2, [5], [20, 21, 22, 23, 24, 2], [25, 2]),
    Pair(3, [30, 31], [2], [32, 33, 34, 35, 2]),
    Pair(4, [40, 41, 42, 43], [44, 45, 2], [46, 47, 2]),
    Pair(5, [50, 51], [52, 2], [53, 2]),
]

PADDING = (("idx", 7), ("targets", IGNORE_INDEX))


class Scripted(nn.Module):
    """A model whose next token is a given one with a given probability, whatever came before: two words, 0 and 1."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.lm_head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.lm_head.weight.copy_(torch.tensor([[probability], [1 - probability]], dtype=torch.float64).log())

    def forward(self, idx: Tensor) -> Tensor:
        return torch.ones(*idx.shape, 1, dtype=torch.float64)


def batch_of(tokenizer: Tokenizer, pairs: list[Pair] = PAIRS) -> Batch:
    reference = 0.5 * torch.randn(len(pairs), 2, generator=torch.Generator().manual_seed(1)) - 15
    return PreferenceBatches(pairs, tokenizer, reference).collate(range(len(pairs)))


def test_the_losses_equal_hand_worked_numbers(tokenizer: Tokenizer) -> None:
    """Word 0 has probability 3/4, 1 has 1/4; the reference holds both for equally likely."""
    reference = torch.tensor([[2 * math.log(0.5), math.log(0.5)]], dtype=torch.float64)
    batch = PreferenceBatches([Pair(1, [0], [0, 0], [1])], tokenizer, reference).collate([0])
    model: Any = Scripted(0.75)
    chosen, rejected = 2 * math.log(1.5), math.log(0.5)  # what each answer gained on the reference
    for name, gains in (("sigmoid", (chosen, rejected)), ("sigmoid_norm", (chosen / 2, rejected))):
        sums = PreferenceLoss(name, 0.3, 0.1)(model, batch)
        margin = 0.3 * (gains[0] - gains[1])
        by_hand = 0.9 * math.log(1 + math.exp(-margin)) + 0.1 * math.log(1 + math.exp(margin))
        assert sums.loss.item() == pytest.approx(by_hand, rel=1e-12)
        found = {key: float(value) for key, value in sums.metrics.items()}
        expected = {"chosen_reward": 0.3 * gains[0], "rejected_reward": 0.3 * gains[1], "margin": margin, "accuracy": 1}
        assert found == pytest.approx(expected, rel=1e-12)
        assert sums.count == 1


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_padding_never_changes_a_log_prob(kind: str, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config(kind)).double()
    batch = batch_of(tokenizer)
    log_probs, counts = sequence_log_probs(model, batch["idx"].flatten(0, 1), batch["targets"].flatten(0, 1))
    wide = [torch.nn.functional.pad(batch[name], (0, 30), value=value) for name, value in PADDING]
    widened, _ = sequence_log_probs(model, *(tensor.flatten(0, 1) for tensor in wide))
    torch.testing.assert_close(widened, log_probs, rtol=1e-12, atol=0)
    for row, pair in enumerate(PAIRS):
        for side, answer in enumerate((pair.chosen_ids, pair.rejected_ids)):
            ids = torch.tensor([[*pair.prompt_ids, *answer]])
            logits = model.logits(model(ids[:, :-1]))[0, len(pair.prompt_ids) - 1 :]
            alone = torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)].sum()
            torch.testing.assert_close(log_probs[2 * row + side], alone, rtol=1e-12, atol=0)
            assert counts[2 * row + side] == len(answer)


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm"])
def test_a_step_is_the_same_however_its_pairs_are_cut_and_dealt_out(name: LossName, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama")).double()
    batch, loss = batch_of(tokenizer), PreferenceLoss(name, 0.5, 0.2)
    whole, gradient = added_up(model, loss, [batch])
    assert whole.count == len(PAIRS)
    for pieces in (list(cut(batch, 2)), list(cut(batch, 1)), [share(batch, rank, 3) for rank in range(3)]):
        sums, found = added_up(model, loss, pieces)
        assert sums.count == whole.count
        torch.testing.assert_close(sums.loss, whole.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(sums.metrics, dict(whole.metrics), rtol=1e-12, atol=0)
        for ours, theirs in zip(found, gradient, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def added_up(model: GPT, loss: PreferenceLoss, pieces: list[Batch]) -> tuple[LossSums, list[Tensor]]:
    found = [loss(model, piece) for piece in pieces]
    metrics = {name: torch.stack([sums.metrics[name] for sums in found]).sum(0) for name in found[0].metrics}
    total = LossSums(sum(sums.loss for sums in found), sum(sums.count for sums in found), metrics)  # type: ignore[arg-type]
    return total, [*torch.autograd.grad(total.loss, [*model.parameters()])]


def test_logits_in_chunks_give_the_same(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_gpt(make_config("llama")).double()
    batch, loss = batch_of(tokenizer), PreferenceLoss("sigmoid", 0.5)
    whole, gradient = added_up(model, loss, [batch])
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", 3 * 384)
    chunked, found = added_up(model, loss, [batch])
    torch.testing.assert_close(chunked.loss, whole.loss, rtol=1e-12, atol=0)
    for ours, theirs in zip(found, gradient, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_where_all_places_are_scored_the_same_comes_out(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of GPUs and of compiled code, which leaves no place out."""
    model = make_gpt(make_config("llama")).double()
    batch = batch_of(tokenizer)
    arguments = batch["idx"].flatten(0, 1), batch["targets"].flatten(0, 1)
    expected = sequence_log_probs(model, *arguments)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(sequence_log_probs(model, *arguments), expected, rtol=1e-12, atol=0)


def test_label_smoothing_lets_no_pair_be_learned_for_certain(tokenizer: Tokenizer) -> None:
    """The gradient vanishes where the margin says just as much as the labels are trusted."""
    model: Any = Scripted(0.9)
    loss = PreferenceLoss("sigmoid", beta=0.5, label_smoothing=0.2)
    margin = 0.5 * (math.log(0.9) - math.log(0.1))
    reference = torch.tensor([[0.0, 2 * (math.log(4) - margin)]], dtype=torch.float64)  # odds of 0.8 : 0.2
    batch = PreferenceBatches([Pair(1, [0], [0], [1])], tokenizer, reference).collate([0])
    (gradient,) = torch.autograd.grad(loss(model, batch).loss, model.lm_head.weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


PREFERENCES = [
    Preference(1, [{"role": "user", "content": "Spell it."}], "d-o-g", "d-o-o-g-s, or not"),
    Preference(2, [{"role": "user", "content": "Hi"}], "Hello! How can I help?", "no"),
    Preference(
        3,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who saw it?"}],
        "Nobody.",
        "A fox did.",
    ),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of trl's and of the libraries below it
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm"])
def test_trl_gives_the_same_loss_and_gradients(
    name: LossName, tiny_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trainer renders the same conversations with our template, on the same weights.

    It smooths no labels in these losses; a smoothed one mixes the loss of a pair and that of its reverse. Its
    log-probabilities are float32.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tiny_checkpoints / "tiny-chat"
    tokenizer = Tokenizer.from_directory(place)
    pairs = render(PREFERENCES, ChatTemplate.from_directory(place, tokenizer))
    model, reference = load_gpt(place).double(), load_gpt(place).double()
    shift(reference)
    unscored = PreferenceBatches(pairs, tokenizer).collate(range(len(pairs)))
    with torch.no_grad():
        log_probs, _ = sequence_log_probs(reference, unscored["idx"].flatten(0, 1), unscored["targets"].flatten(0, 1))
    batch = PreferenceBatches(pairs, tokenizer, log_probs.view(-1, 2)).collate(range(len(pairs)))

    trainer = trl_trainer(place, tmp_path, name)
    forward, rewards = trl_loss(trainer, PREFERENCES)
    backward, _ = trl_loss(trainer, [Preference(p.record, p.prompt, p.rejected, p.chosen) for p in PREFERENCES])
    for smoothing in (0.0, 0.2):
        sums = PreferenceLoss(name, 0.1, smoothing)(model, batch)
        theirs = (1 - smoothing) * forward + smoothing * backward
        assert abs(sums.loss.item() / len(pairs) - theirs.item()) <= 1e-6
        trainer.model.zero_grad()
        theirs.backward(retain_graph=True)
        expected = dict(trainer.model.named_parameters())
        names = {"wte": "model.embed_tokens", "ln_f": "model.norm", "h.1.mlp.down": "model.layers.1.mlp.down_proj"}
        ours = [model.get_parameter(f"{each}.weight") for each in names]
        for gradient, public in zip(torch.autograd.grad(sums.loss / len(pairs), ours), names.values(), strict=True):
            assert gradient.abs().max() > 1e-3
            torch.testing.assert_close(gradient, expected[f"{public}.weight"].grad, rtol=0, atol=1e-6)
    if name == "sigmoid":
        for metric, key in (("chosen_reward", "rewards/chosen"), ("rejected_reward", "rewards/rejected")):
            assert abs(sums.metrics[metric].item() / len(pairs) - rewards[key]) <= 1e-6
        assert abs(sums.metrics["accuracy"].item() / len(pairs) - rewards["rewards/accuracies"]) <= 1e-6


@torch.no_grad()
def shift(model: nn.Module) -> None:
    """Make a reference out of a copy."""
    for parameter in model.parameters():
        parameter.mul_(0.9)


def trl_trainer(place: Path, folder: Path, name: str) -> Any:
    from datasets import Dataset  # these take seconds to import
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model, reference = (AutoModelForCausalLM.from_pretrained(place, dtype=torch.float64) for _ in range(2))
    shift(reference)
    args = DPOConfig(
        output_dir=str(folder), loss_type=[name], beta=0.1, report_to=[], use_cpu=True, max_length=None, bf16=False
    )
    rows = Dataset.from_list([as_trl(preference) for preference in PREFERENCES])
    tokenizer = AutoTokenizer.from_pretrained(place)
    return DPOTrainer(model=model, ref_model=reference, args=args, train_dataset=rows, processing_class=tokenizer)


def trl_loss(trainer: Any, preferences: list[Preference]) -> tuple[Tensor, dict[str, float]]:
    from datasets import Dataset

    rows = Dataset.from_list([as_trl(preference) for preference in preferences])
    rows = trainer._prepare_dataset(rows, trainer.processing_class, trainer.args, "pairs")
    trainer.model.eval()
    trainer._metrics["eval"].clear()
    loss = trainer._compute_loss(trainer.model, trainer.data_collator(list(rows)), return_outputs=False)
    return loss, {key: values[-1] for key, values in trainer._metrics["eval"].items()}


def as_trl(preference: Preference) -> dict[str, Any]:
    answers = {"chosen": preference.chosen, "rejected": preference.rejected}
    return {
        "prompt": [*preference.prompt],
        **{key: [{"role": "assistant", "content": answer}] for key, answer in answers.items()},
    }
