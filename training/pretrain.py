"""Recipe: teach a model to continue text, from scratch.

`run` goes from a file to a checkpoint; `build_model` and `pretrain` are its parts, for data already at hand.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from model.checkpoint import save_checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.best import OnDisk, best_card
from training.card import Card, repeat_command, save_run
from training.config import PretrainConfig
from training.data.prepare import (
    Corpus,
    fingerprint,
    is_corpus,
    open_corpus,
    read_documents,
    split_documents,
    write_corpus,
)
from training.data.tokens import Ids, TokenWindows, covering_batches
from training.evaluate import Metrics, token_metrics
from training.loss import next_token_loss
from training.parallel import World
from training.recipe import conduct, must_be_over, open_log
from training.run_folder import RunFolder
from training.state import TrainerState
from training.trainer import Keeping, Trainer
from training.vocabulary import train_bpe

logger = logging.getLogger(__name__)


def run(config: PretrainConfig) -> None:
    """Train a base model on a text and write its checkpoint.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the text cannot be used.
        OutputError: the checkpoint cannot be put where it should go.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: PretrainConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    world = World.current()
    corpus, tokenizer = world.first(lambda: load_corpus(config, folder.data))
    folder.must_match(tokenizer=fingerprint(tokenizer))
    model = build_model(config, tokenizer)
    logger.info("%s parameters, %s training tokens", f"{model.num_params():,}", f"{sum(map(len, corpus.train)):,}")

    def write_best(place: Path, best: GPT) -> None:
        save_checkpoint(place, best, tokenizer, model_card=best_card(config.out))

    best = OnDisk(folder.path, write_best)
    with open_log(config, folder) as log:
        state = pretrain(model, corpus.train, corpus.valid, config, log=log, snapshots=folder.snapshots(), best=best)
    must_be_over(state)
    if world.is_first:
        metrics = token_metrics(model, corpus.valid, eos_id=tokenizer.eos_id, num_bytes=corpus.valid_bytes)
        save_run(config, model, tokenizer, describe(config, corpus, metrics), log, state)
        logger.info("wrote %s: %.3f bits per byte on held-out text", config.out, metrics["bits_per_byte"])


def load_corpus(config: PretrainConfig, folder: Path) -> tuple[Corpus, Tokenizer]:
    """Open token shards, writing them to `folder` first if the data is still text; train a vocabulary if none is given.

    Raises:
        DataError: the text is missing, empty or too short, or the shards belong to another tokenizer.
        TokenizerError: the tokenizer cannot be read.
    """
    for place in (folder, config.data[0]):
        if is_corpus(place):
            tokenizer = Tokenizer.from_directory(config.tokenizer or place)
            return open_corpus(place, tokenizer), tokenizer
    train, valid = split_documents(read_documents(config.data[0]), config.valid_fraction)
    if config.tokenizer is not None:
        tokenizer = Tokenizer.from_directory(config.tokenizer)
    else:
        tokenizer = train_bpe(train, config.vocab_size)
    write_corpus(folder, train, valid, tokenizer)
    return open_corpus(folder, tokenizer), tokenizer


def build_model(config: PretrainConfig, tokenizer: Tokenizer) -> GPT:
    """Return a model of the configured shape for a tokenizer, with fresh weights."""
    return GPT(config.model.build(tokenizer.vocab_size))


def pretrain(
    model: GPT, train: Sequence[Ids], valid: Ids, config: PretrainConfig, **keeping: Unpack[Keeping]
) -> TrainerState:
    """Train a model in place to predict each next token.

    Args:
        train: one array of ids, or several that no window crosses.
        valid: held-out ids.

    Raises:
        DataError: the training text is shorter than one window.
        NonFiniteError: training diverged.
    """
    block_size = model.config.block_size
    stride = config.stride or max(1, block_size // 8)
    windows = TokenWindows(train, block_size=block_size, stride=stride, batch_size=config.batch_size, seed=config.seed)
    held_out = covering_batches(valid, block_size=block_size, batch_size=config.batch_size, stride=block_size)
    return Trainer(model, next_token_loss, windows, config, valid=held_out, title="pretrain", **keeping).fit()


def describe(config: PretrainConfig, corpus: Corpus, metrics: Metrics) -> Card:
    """Return what the model card says beside the facts of the run."""
    num_train, num_valid = sum(map(len, corpus.train)), len(corpus.valid)
    return Card(
        summary="A language model that continues text.",
        data=f"`{config.data[0].name}`: {num_train:,} tokens to train on, {num_valid:,} held out from its end.",
        metrics={
            "Held-out loss (nats per token)": metrics["loss"],
            "Held-out perplexity": metrics["perplexity"],
            "Held-out bits per byte": metrics["bits_per_byte"],
        },
        reproduce=repeat_command("pretrain", config.out),
    )
