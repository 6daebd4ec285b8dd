"""Recipe: teach an assistant which of two answers is the better one, without going far from what it was.

`run` goes from a file to a checkpoint; `prefer` is its heart, for pairs already at hand.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from model.chat import ChatTemplate
from model.checkpoint import save_checkpoint
from model.directory import CheckpointError, read_checkpoint
from model.gpt import GPT
from model.templates import input_heading
from model.tokenizer import Tokenizer
from training.chat_tools import ChatTools, own_tools
from training.config.dpo import DpoConfig
from training.data.errors import DataError
from training.data.instruction import counted, read_conversations
from training.data.pairs import Pair, PreferenceBatches, fitting, render, split_pairs
from training.data.preference import read_preferences, tally
from training.data.splits import prompt_key, prompts
from training.evaluation.preferences import loss_metrics
from training.evaluation.text import Metrics
from training.finetune import base_digest, load_base, prepare
from training.machine.device import autocast
from training.machine.parallel import World
from training.preference_loss import PreferenceLoss
from training.recipe import conduct, digest, keeping, must_be_over, open_log
from training.reference import REFERENCE_FILE, kept_log_probs
from training.run.best import best_card
from training.run.card import Card, repeat_command, save_run
from training.run.folder import RunFolder
from training.run.state import TrainerState
from training.trainer import Keeping, Trainer

logger = logging.getLogger(__name__)


def run(config: DpoConfig) -> None:
    """Tune an assistant on preferences and write its checkpoint.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the preferences cannot be used.
        OutputError: the checkpoint cannot be put where it should go.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: DpoConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    tools, block_size = open_assistant(config.base)
    tokenizer = tools.tokenizer
    train, valid = load_pairs(config, tools.template, block_size)
    weights = base_digest(config.base)
    folder.must_match(data=digest((train, valid)), base=weights)
    model = load_base(config.base, config)
    adapter = prepare(model, config)
    parts = {"train": PreferenceBatches(train, tokenizer), "valid": PreferenceBatches(valid, tokenizer)}
    mark = digest((train, valid, weights, config.precision, config.lora.base_dtype))
    reference = kept_log_probs(model, parts, config, folder.data / REFERENCE_FILE, mark)
    kept_as_is: dict[str, Any] = {
        "chat_template": tools.template.source,
        "eos_token_ids": tools.end_ids,
        "adapter": adapter,
    }

    def write_best(place: Path, best: GPT) -> None:
        save_checkpoint(place, best, tokenizer, model_card=best_card(config.out), **kept_as_is)

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        state = prefer(model, train, valid, reference, tokenizer, config, **kept)
    must_be_over(state)
    if World.current().is_first:
        held_out = PreferenceBatches(valid, tokenizer, reference["valid"]).in_order(
            config.micro_batch_size or config.batch_size
        )
        with autocast(config):  # as the reference was computed
            metrics = loss_metrics(model, held_out, loss_of(config))
        card = describe(config, len(train), len(valid), metrics)
        save_run(config, model, tokenizer, card, log, state, **kept_as_is)
        logger.info(
            "wrote %s: the chosen answer gained on the rejected one in %.1f%% of held-out pairs",
            config.out,
            100 * metrics["accuracy"],
        )


def open_assistant(base: Path) -> tuple[ChatTools, int]:
    """Return what renders the conversations of a base, all of which stays as it is, and the length of its context.

    Raises:
        CheckpointError: it is no assistant.
    """
    checkpoint = read_checkpoint(base)
    if checkpoint.kind == "classifier":
        raise CheckpointError(f"--base: {base} holds a classifier; give an assistant")
    if checkpoint.kind != "chat":
        raise CheckpointError(
            f"--base: {base} has no chat template: it continues text and answers nobody; make it an assistant first, "
            "with groundup instruct"
        )
    return own_tools(checkpoint, Tokenizer.from_directory(base)), checkpoint.config.block_size


def load_pairs(config: DpoConfig, template: ChatTemplate, block_size: int) -> tuple[list[Pair], list[Pair]]:
    """Read the preferences to train and to validate on; say what is left out of them, and why.

    Raises:
        DataError: they cannot be used.
    """
    pairs = read_pairs(config.data, "--data", template, block_size, without=config.without)
    if config.valid_data is None:
        return split_pairs(pairs, config.valid_fraction, config.seed)
    valid = read_pairs(config.valid_data, "--valid-data", template, block_size)
    trained = {tuple(pair.prompt_ids) for pair in pairs}
    if repeated := [pair.record for pair in valid if tuple(pair.prompt_ids) in trained]:
        logger.warning(
            "--valid-data: %s: prompts of %d pairs are also trained on, records %s",
            *(config.valid_data, *counted(repeated)),
        )
    return pairs, valid


def read_pairs(
    path: Path, flag: str, template: ChatTemplate, block_size: int, *, without: Path | None = None
) -> list[Pair]:
    """Read the pairs of one file that fit the model's context.

    Args:
        without: file of conversations whose prompts are to be left out.

    Raises:
        DataError: it cannot be used.
    """
    heading = input_heading(template.source)
    preferences, unused = read_preferences(path, heading=heading, flag=flag)
    if without is not None:
        held_out = set(prompts(read_conversations(without, heading=heading, flag="--without")))
        kept = [each for each in preferences if prompt_key(each.prompt) not in held_out]
        if num_held_out := len(preferences) - len(kept):
            unused["held out by --without"] = num_held_out
        preferences = kept
        if not preferences:
            raise DataError(f"--without: {without} holds every prompt of {path}; nothing is left to train on")
    if unused:
        logger.warning("%s: %s: %d records make no pair: %s", flag, path, unused.total(), tally(unused))
    pairs, left_out = fitting(render(preferences, template, flag=flag), block_size, flag=flag)
    if left_out:
        logger.warning("%s: %s: %s", flag, path, left_out)
    return pairs


def loss_of(config: DpoConfig) -> PreferenceLoss:
    """Return the loss that a run makes small."""
    return PreferenceLoss(config.loss, config.beta, config.label_smoothing)


def prefer(
    model: GPT,
    train: Sequence[Pair],
    valid: Sequence[Pair],
    reference: dict[str, Tensor],
    tokenizer: Tokenizer,
    config: DpoConfig,
    **keeping: Unpack[Keeping],
) -> TrainerState:
    """Train a model in place to prefer the chosen answers.

    Args:
        reference: log-probabilities of the answers under the reference model, for `train` and `valid`.

    Raises:
        NonFiniteError: training diverged.
    """
    batches = PreferenceBatches(train, tokenizer, reference["train"]).shuffled(config.batch_size, config.seed)
    valid_batches = PreferenceBatches(valid, tokenizer, reference["valid"]).in_order(
        config.micro_batch_size or config.batch_size
    )
    return Trainer(model, loss_of(config), batches, config, valid=valid_batches, title="dpo", **keeping).fit()


def describe(config: DpoConfig, num_train: int, num_valid: int, metrics: Metrics) -> Card:
    """Return what the model card says beside the facts of the run."""
    unit = "nats per answer" if config.loss == "sigmoid" else "nats per token"
    return Card(
        summary=f"An assistant, tuned from `{config.base.name}` by preferences between answers (DPO).",
        data=f"`{config.data.name}`: {num_train:,} pairs of answers to train on, {num_valid:,} held out.",
        metrics={
            "Held-out loss (nats per pair)": metrics["loss"],
            "Held-out pairs whose chosen answer gained on the rejected one": f"{metrics['accuracy']:.1%}",
            f"Reward of the chosen answer (beta times {unit})": metrics["chosen_reward"],
            "Reward of the rejected answer": metrics["rejected_reward"],
            "Margin between them": metrics["margin"],
        },
        reproduce=repeat_command("dpo", config.out),
    )
