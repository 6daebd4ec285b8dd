"""Recipe: teach a model to label texts, from scratch or from a base checkpoint.

`run` goes from a file to a checkpoint; `build_classifier` and `classify` are its parts, for texts already at hand.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from model.checkpoint import load_gpt, save_checkpoint
from model.classifier import GPTClassifier
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.baselines import naive_bayes, tfidf_logistic_regression
from training.best import best_card
from training.card import Card, repeat_command, save_run
from training.config.classify import ClassifyConfig
from training.config.run import OptimConfig
from training.data.classification import (
    Example,
    Split,
    TextBatches,
    balanced,
    class_sizes,
    read_examples,
    split_examples,
    without_duplicates,
)
from training.data.encoding import encode_documents, fingerprint
from training.data.tokens import TokenWindows
from training.evaluation.labels import label_metrics, predict
from training.evaluation.text import Metrics
from training.loss import label_loss, next_token_loss
from training.parallel import World
from training.recipe import conduct, digest, keeping, must_be_over, open_log
from training.run_folder import RunFolder
from training.state import TrainerState
from training.trainer import Keeping, Trainer
from training.vocabulary import train_bpe

logger = logging.getLogger(__name__)

READING_WINDOWS = 8
"""Windows in a step of next-token training on the texts that are to be classified."""


def run(config: ClassifyConfig) -> None:
    """Train a classifier on labelled texts and write its checkpoint, beside two baselines on the same split.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the texts cannot be used.
        OutputError: the checkpoint cannot be put where it should go.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: ClassifyConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    split = load_split(config)
    labels = sorted({example.label for example in split.train})
    tokenizer = choose_tokenizer(config, split.train)
    folder.must_match(data=digest(split), tokenizer=fingerprint(tokenizer))
    model = build_classifier(config, tokenizer, split.train, num_labels=len(labels), folder=folder)

    def write_best(place: Path, best: GPTClassifier) -> None:
        save_checkpoint(place, best, tokenizer, labels=labels, model_card=best_card(config.out))

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        state = classify(model, split, labels, tokenizer, config, **kept)
    must_be_over(state)
    if World.current().is_first:
        metrics = compare(model, split, labels, tokenizer)
        card = Card(
            summary=f"A classifier of texts: {', '.join(labels)}.",
            data=describe_data(config, split),
            metrics={name: f"{value:.2%}" for name, value in metrics.items()},
            reproduce=repeat_command("classify", config.out),
        )
        save_run(config, model, tokenizer, card, log, state, labels=labels)
        results = ", ".join(f"{name} {value:.2%}" for name, value in metrics.items())
        logger.info("wrote %s: test accuracy of %s", config.out, results)


def load_split(config: ClassifyConfig) -> Split:
    """Read the texts, drop duplicates and balance if told to, and split.

    Raises:
        DataError: the texts cannot be used.
    """
    examples = read_examples(config.data, config.text_column, config.label_column)
    unique = without_duplicates(examples)
    logger.info(
        "%d texts (%s), %d repeat an earlier one", len(examples), class_sizes(examples), len(examples) - len(unique)
    )
    if config.deduplicate:
        examples = unique
    if config.balance:
        examples = balanced(examples, config.split_seed)
    return split_examples(examples, config.valid_fraction, config.test_fraction, config.split_seed)


def choose_tokenizer(config: ClassifyConfig, train: Sequence[Example]) -> Tokenizer:
    """Return the base's tokenizer, or train one on the training texts alone."""
    if config.base is not None:
        return Tokenizer.from_directory(config.base)
    return train_bpe((example.text for example in train), config.vocab_size)


def build_classifier(
    config: ClassifyConfig,
    tokenizer: Tokenizer,
    train: Sequence[Example],
    *,
    num_labels: int,
    folder: RunFolder | None = None,
) -> GPTClassifier:
    """Return a classifier with a fresh head on a base model, or on a model that has read the training texts only.

    Args:
        folder: where the reading is saved and goes on from.

    Raises:
        CheckpointError: the base cannot be used.
        StoppedError: asked to stop while reading the texts.
    """
    if config.base is not None:
        body = load_gpt(config.base)
    else:
        body = GPT(config.model.build(tokenizer.vocab_size))
        if config.warmup_lm_steps and (folder is None or not folder.resume_step):
            read_texts(body, [example.text for example in train], tokenizer, config, folder)
    classifier = GPTClassifier(body.config, num_labels)
    weights = {name: tensor for name, tensor in body.state_dict().items() if not name.startswith("lm_head")}
    classifier.gpt.load_state_dict(weights)
    return classifier


def read_texts(
    model: GPT, texts: Sequence[str], tokenizer: Tokenizer, config: ClassifyConfig, folder: RunFolder | None = None
) -> None:
    """Train a model in place to continue the texts, so that it knows their words before it learns their classes.

    Raises:
        StoppedError: asked to stop.
    """
    ids = encode_documents(texts, tokenizer)
    block_size = min(model.config.block_size, 128)
    windows = TokenWindows(
        [ids],
        block_size=block_size,
        stride=block_size // 8,
        batch_size=READING_WINDOWS,
        seed=config.seed,
    )
    changes = {"steps": config.warmup_lm_steps, "batch_size": READING_WINDOWS, "optim": OptimConfig(), "ema": None}
    kept = Keeping(snapshots=folder.snapshots("reading")) if folder is not None else Keeping()
    reading = config.model_copy(update=changes)
    must_be_over(Trainer(model, next_token_loss, windows, reading, title="read texts", **kept).fit())


def classify(
    model: GPTClassifier,
    split: Split,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    config: ClassifyConfig,
    **keeping: Unpack[Keeping],
) -> TrainerState:
    """Train a classifier in place; the test part is not looked at.

    Raises:
        NonFiniteError: training diverged.
    """
    max_length = config.max_length or model.config.block_size
    train, valid = (TextBatches(part, labels, tokenizer, max_length=max_length) for part in (split.train, split.valid))
    if train.num_cut:
        logger.warning("cut %d of %d training texts to %d tokens", train.num_cut, len(train.ids), max_length)
    batches = train.shuffled(config.batch_size, config.seed)
    valid_batches = valid.in_order(config.batch_size)
    return Trainer(model, label_loss, batches, config, valid=valid_batches, title="classify", **keeping).fit()


def compare(model: GPTClassifier, split: Split, labels: Sequence[str], tokenizer: Tokenizer) -> Metrics:
    """Return the test accuracy of the classifier and of two baselines trained on the same texts."""
    texts = TextBatches(split.test, labels, tokenizer, max_length=model.config.block_size)
    found = label_metrics(predict(model, texts.in_order(32)), texts.labels, len(labels))
    return {
        "this model": found["accuracy"],
        "TF-IDF + logistic regression": tfidf_logistic_regression(split.train, split.test),
        "naive Bayes": naive_bayes(split.train, split.test),
    }


def describe_data(config: ClassifyConfig, split: Split) -> str:
    """Say what was trained and tested on."""
    steps = [
        "without repeated texts" if config.deduplicate else "with repeated texts",
        "balanced" if config.balance else "in its own balance",
    ]
    return (
        f"`{config.data.name}`, {' and '.join(steps)}: {len(split.train):,} texts to train on "
        f"({class_sizes(split.train)}), {len(split.valid):,} to choose the weights by, {len(split.test):,} to test on."
    )
