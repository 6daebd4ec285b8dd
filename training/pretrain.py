"""Recipe: teach a model to continue text, from scratch or from a checkpoint.

`run` goes from files to a checkpoint; `build_model` and `pretrain` are its parts, for data already at hand.
"""

import functools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from model.checkpoint import load_gpt, save_checkpoint
from model.config import PRESETS
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.config.pretrain import PretrainConfig
from training.data.batches import Batches
from training.data.corpus import Corpus, load_corpus, verify
from training.evaluation.text import Metrics, loss_metrics
from training.finetune import must_be_language_model
from training.loss import Batch, next_token_loss, next_token_scores, readable, token_byte_lengths
from training.machine.parallel import World
from training.recipe import conduct, keeping, must_be_over, open_log
from training.run.best import best_card
from training.run.card import Card, repeat_command, save_run
from training.run.folder import RunFolder
from training.run.samples import Samples
from training.run.state import TrainerState
from training.trainer import Keeping, Trainer

logger = logging.getLogger(__name__)

INITIAL_STD = 0.02
"""Standard deviation of the weights of a fresh model."""


class Cutting(TypedDict):
    """How texts are cut, whatever they serve for."""

    block_size: int
    batch_size: int
    document_mask: bool


def run(config: PretrainConfig) -> None:
    """Train a base model on texts and write its checkpoint.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the texts cannot be used.
        OutputError: the checkpoint cannot be put where it should go, or the run cannot go on from where it stood.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: PretrainConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    world = World.current()
    if config.verify_data:
        world.alone(lambda: verify(config.data))
    tokenizer = base_tokenizer(config)
    corpus = world.first(lambda: load_corpus(config, folder.data, tokenizer=tokenizer))
    folder.must_match(data=corpus.fingerprint)
    tokenizer = corpus.tokenizer
    model = build_model(config, tokenizer)
    logger.info("%s parameters, %s training tokens", f"{model.num_params():,}", f"{corpus.num_train_tokens:,}")

    def write_best(place: Path, best: GPT) -> None:
        save_checkpoint(place, best, tokenizer, model_card=best_card(config.out))

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        if config.sample_tokens:
            kept["on_validation"] = Samples(
                tokenizer,
                config.sample_prompts,
                config.sample_tokens,
                log,
                seed=config.seed,
                is_shown=world.is_first,
            )
        train, valid = open_batches(config, corpus, model.config.block_size)
        state = pretrain(model, train, valid, tokenizer, config, **kept)
    must_be_over(state)
    if world.is_first:
        metrics = held_out_metrics(model, corpus, config)
        save_run(config, model, tokenizer, describe(config, corpus, metrics), log, state)
        logger.info("wrote %s: %.3f bits per byte on held-out text", config.out, metrics["bits_per_byte"])


def base_tokenizer(config: PretrainConfig) -> Tokenizer | None:
    """Return the tokenizer of the checkpoint to start from, if there is one.

    Raises:
        CheckpointError: it is not a language model.
    """
    if config.base is None:
        return None
    must_be_language_model(config.base)
    return Tokenizer.from_directory(config.base)


def build_model(config: PretrainConfig, tokenizer: Tokenizer) -> GPT:
    """Return a model of the configured shape for a tokenizer with fresh weights, or the one to start from.

    Raises:
        CheckpointError: the base cannot be read.
        ValueError: the sizes do not fit together.
    """
    if config.base is not None:
        base = load_gpt(config.base)
        model = GPT(base.config.model_copy(update={"dropout": config.model.dropout}))
        model.load_state_dict(base.state_dict())
        return model
    preset = PRESETS[config.preset] if config.preset is not None else None
    model = GPT(config.model.build(tokenizer.vocab_size, preset))
    spread_embeddings(model, config.model.embedding_std)
    return model


@torch.no_grad()
def spread_embeddings(model: GPT, std: float) -> None:
    """Scale fresh embeddings of tokens and of positions, if there are any, to a standard deviation."""
    for table in (model.wte, model.wpe):
        if table is not None:
            table.weight.mul_(std / INITIAL_STD)


def open_batches(config: PretrainConfig, corpus: Corpus, block_size: int) -> tuple[Batches, Sequence[Batch]]:
    """Return the batches to train on, and those to look at while training.

    Raises:
        DataError: the texts are shorter than one window.
    """
    stride = config.stride or max(1, block_size // 8)
    common = Cutting(block_size=block_size, batch_size=config.batch_size, document_mask=config.document_mask)
    train = corpus.train_batches(**common, stride=stride, seed=config.seed)
    return train, corpus.valid_batches(**common, stride=block_size, limit=config.eval_tokens)


def pretrain(
    model: GPT,
    train: Batches,
    valid: Sequence[Batch],
    tokenizer: Tokenizer,
    config: PretrainConfig,
    **keeping: Unpack[Keeping],
) -> TrainerState:
    """Train a model in place to predict each next token.

    Args:
        train: windows of text for each step.
        valid: held-out windows.
        tokenizer: turns losses into bits per byte.
        keeping: what the run leaves behind while it goes on.

    Raises:
        NonFiniteError: training diverged.
    """
    byte_lengths = token_byte_lengths(tokenizer, model.config.vocab_size)
    scores = functools.partial(next_token_scores, byte_lengths=byte_lengths)
    return Trainer(
        model,
        next_token_loss,
        train,
        config,
        valid=valid,
        valid_loss=scores,
        readable=readable,
        title="pretrain",
        **keeping,
    ).fit()


def held_out_metrics(model: GPT, corpus: Corpus, config: PretrainConfig) -> Metrics:
    """Score every held-out token, each seen with at least half a context before it."""
    block_size = model.config.block_size
    batches = corpus.valid_batches(
        block_size=block_size,
        batch_size=config.micro_batch_size or config.batch_size,
        stride=max(1, block_size // 2),
        document_mask=config.document_mask,
    )
    metrics = loss_metrics(model, batches)
    bits = metrics["loss"] * metrics["num_targets"] / math.log(2)
    return {**metrics, "bits_per_byte": bits / corpus.valid_bytes}


def describe(config: PretrainConfig, corpus: Corpus, metrics: Metrics) -> Card:
    """Return what the model card says beside the facts of the run."""
    names = ", ".join(f"`{path.name}`" for path in config.data)
    start = f" It continues the training of `{config.base.name}`." if config.base is not None else ""
    return Card(
        summary=f"A language model that continues text.{start}",
        data=f"{names}: {corpus.num_train_tokens:,} tokens to train on, {corpus.num_valid_tokens:,} held out.",
        metrics={
            "Held-out loss (nats per token)": metrics["loss"],
            "Held-out perplexity": metrics["perplexity"],
            "Held-out bits per byte": metrics["bits_per_byte"],
        },
        reproduce=repeat_command("pretrain", config.out),
    )
