"""Recipe: teach a base model to answer, from conversations; only answers are learned, prompts are given.

`run` goes from a file to a checkpoint; `instruct` is its heart, for conversations already at hand.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from model.chat import DEFAULT_TEMPLATE, END_OF_TURN, ChatTemplate
from model.checkpoint import load_gpt, save_checkpoint
from model.directory import CheckpointError, read_checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.best import best_card
from training.card import Card, repeat_command, save_run
from training.config.instruct import InstructConfig
from training.data.encoding import fingerprint
from training.data.errors import DataError
from training.data.instruction import Conversation, ConversationBatches, read_conversations
from training.evaluation.answers import answer, exact_match
from training.evaluation.text import Metrics, loss_metrics
from training.loss import next_token_loss
from training.parallel import World
from training.recipe import conduct, digest, keeping, must_be_over, open_log
from training.run_folder import RunFolder
from training.state import TrainerState
from training.trainer import Keeping, Trainer

logger = logging.getLogger(__name__)


def run(config: InstructConfig) -> None:
    """Finetune a base checkpoint on conversations and write a chat checkpoint.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the conversations cannot be used.
        OutputError: the checkpoint cannot be put where it should go.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: InstructConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    train, valid = split_conversations(read_conversations(config.data), config.valid_fraction, config.seed)
    tokenizer, template = chat_tools(config)
    folder.must_match(data=digest((train, valid)), base=fingerprint(tokenizer))
    model = load_gpt(config.base)

    def write_best(place: Path, best: GPT) -> None:
        card = best_card(config.out)
        save_checkpoint(place, best, tokenizer, chat_template=template.source, model_card=card)

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        state = instruct(model, train, valid, template, tokenizer, config, **kept)
    must_be_over(state)
    if World.current().is_first:
        metrics = held_out_metrics(model, valid, template, tokenizer)
        card = describe(config, len(train), len(valid), metrics)
        save_run(config, model, tokenizer, card, log, state, chat_template=template.source)
        logger.info("wrote %s: %.1f%% of held-out answers exactly right", config.out, 100 * metrics["exact_match"])


def chat_tools(config: InstructConfig) -> tuple[Tokenizer, ChatTemplate]:
    """Return the base's tokenizer, made to end with a turn, and its chat template or else our own.

    Raises:
        CheckpointError: the base is a classifier, or its tokenizer lacks the template's special tokens.
    """
    base = read_checkpoint(config.base)
    tokenizer = Tokenizer.from_directory(config.base)
    if base.kind == "classifier":
        raise CheckpointError(f"--base: {config.base} holds a classifier; give a language model")
    if base.kind == "chat":
        return tokenizer, ChatTemplate.from_directory(config.base, tokenizer)
    missing = [token for token in ("<|user|>", "<|assistant|>", END_OF_TURN) if token not in tokenizer.special_tokens]
    if missing:
        raise CheckpointError(
            f"--base: the tokenizer of {config.base} lacks {missing[0]}, which our chat template needs"
        )
    tokenizer = tokenizer.with_eos(END_OF_TURN)
    return tokenizer, ChatTemplate(DEFAULT_TEMPLATE, tokenizer)


def split_conversations(
    conversations: Sequence[Conversation], valid_fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Hold out a random share.

    Raises:
        DataError: fewer than two conversations.
    """
    if len(conversations) < 2:
        raise DataError("--data: one conversation is too few to train and validate on")
    order = np.random.default_rng(seed).permutation(len(conversations))
    num_valid = max(1, round(valid_fraction * len(order)))
    held_out = set(order[:num_valid].tolist())
    train = [messages for i, messages in enumerate(conversations) if i not in held_out]
    return train, [conversations[i] for i in sorted(held_out)]


def instruct(
    model: GPT,
    train: Sequence[Conversation],
    valid: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    config: InstructConfig,
    **keeping: Unpack[Keeping],
) -> TrainerState:
    """Train a model in place to give the answers of conversations.

    Raises:
        DataError: no conversation fits the context.
        NonFiniteError: training diverged.
    """
    rows, held_out = (
        ConversationBatches(part, template, tokenizer, block_size=model.config.block_size) for part in (train, valid)
    )
    if rows.num_dropped:
        logger.warning("left out %d conversations longer than %d tokens", rows.num_dropped, model.config.block_size)
    batches = rows.shuffled(config.batch_size, config.seed)
    valid_batches = held_out.in_order(config.batch_size)
    return Trainer(model, next_token_loss, batches, config, valid=valid_batches, title="instruct", **keeping).fit()


def held_out_metrics(
    model: GPT, valid: Sequence[Conversation], template: ChatTemplate, tokenizer: Tokenizer
) -> Metrics:
    """Return the loss on held-out answers and the share that is given exactly."""
    batches = ConversationBatches(valid, template, tokenizer, block_size=model.config.block_size)
    answers = answer(model, valid, template, tokenizer, end_ids=[tokenizer.eos_id])
    wanted = [messages[-1]["content"] for messages in valid]
    return {**loss_metrics(model, batches.in_order(32)), "exact_match": exact_match(answers, wanted)}


def describe(config: InstructConfig, num_train: int, num_valid: int, metrics: Metrics) -> Card:
    """Return what the model card says beside the facts of the run."""
    return Card(
        summary=f"An assistant, finetuned from `{config.base.name}`.",
        data=f"`{config.data.name}`: {num_train:,} conversations to train on, {num_valid:,} held out.",
        metrics={
            "Held-out loss (nats per answer token)": metrics["loss"],
            "Held-out answers exactly right": f"{metrics['exact_match']:.1%}",
        },
        reproduce=repeat_command("instruct", config.out),
    )
