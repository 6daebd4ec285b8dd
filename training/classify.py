"""Recipe: teach a model to label texts, from scratch or from a base checkpoint.

`run` goes from a file to a checkpoint; `build_classifier` and `classify` are its parts, for texts already at hand.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from model.checkpoint import load_gpt, save_checkpoint
from model.classifier import GPTClassifier
from model.config import GPTConfig
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.baselines import label_baselines
from training.config.classify import ClassifyConfig
from training.config.run import OptimConfig
from training.data.classification import TextBatches
from training.data.encoding import encode_documents, fingerprint
from training.data.label_parts import load_split
from training.data.label_split import Split
from training.data.labelled import Example, Marks, label_names, mark
from training.data.tokens import TokenWindows
from training.evaluation.label_report import REPORT_FILE, LabelReport
from training.evaluation.labels import LabelMeasures, accuracy, measure
from training.evaluation.text import Metrics
from training.finetune import base_digest, choose, must_be_language_model, prepare
from training.loss import label_loss, next_token_loss
from training.machine.parallel import World
from training.recipe import conduct, digest, keeping, must_be_over, open_log
from training.run.best import best_card
from training.run.card import Card, repeat_command, save_run
from training.run.folder import RunFolder
from training.run.state import TrainerState
from training.trainer import Keeping, Trainer
from training.vocabulary import train_bpe

logger = logging.getLogger(__name__)

READING_WINDOWS = 8
"""Windows in a step of next-token training on the texts that are to be classified."""

SHORTEST_WINDOW = 128
"""Tokens of such a window where the texts are short; else it is as long as a text on average, if the context is."""


def run(config: ClassifyConfig) -> None:
    """Train a classifier on labelled texts and write its checkpoint, with a report beside simple methods.

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
    labels = label_names(split.train)
    tokenizer = choose_tokenizer(config, split.train)
    base = {} if config.base is None else {"base": base_digest(config.base)}
    folder.must_match(data=digest(split), tokenizer=fingerprint(tokenizer), **base)
    model = build_classifier(config, tokenizer, split.train, num_labels=len(labels), folder=folder)
    adapter = prepare(model, config)
    baselines = say_baselines(split, labels) if World.current().is_first else {}  # whatever fails there fails now
    tokenizer = tokenizer.with_cut(longest(model.config, config), "right" if config.cut == "end" else "left")
    kind: dict[str, Any] = {"labels": labels, "is_multi_label": config.multi_label, "adapter": adapter}

    def write_best(place: Path, best: GPTClassifier) -> None:
        save_checkpoint(place, best, tokenizer, model_card=best_card(config.out), **kind)

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        state = classify(model, split, labels, tokenizer, config, **kept)
    must_be_over(state)
    if World.current().is_first:
        measures, cuts = test(model, split, labels, tokenizer, config)
        texts = [example.text for example in split.test]
        report = LabelReport(config.out.name, measures, texts, baselines, [*split.notes, *cuts])
        card = describe(config, report)
        save_run(config, model, tokenizer, card, log, state, extra_files=report.files(), **kind)
        results = ", ".join(f"{name} {scores['accuracy']:.2%}" for name, scores in report.scores().items())
        logger.info("wrote %s: test accuracy of %s", config.out, results)


def choose_tokenizer(config: ClassifyConfig, train: Sequence[Example]) -> Tokenizer:
    """Return the base's tokenizer, or train one on the training texts alone.

    Raises:
        CheckpointError: the base cannot be read, or is a classifier itself.
    """
    if config.base is not None:
        must_be_language_model(config.base)
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
    """Return a classifier with a fresh head on a base model or a new one, which has read the training texts if told to.

    Args:
        folder: where the reading is saved and goes on from.

    Raises:
        CheckpointError: the base cannot be used.
        ValueError: it has fewer blocks than shall train, or a smaller context than asked for.
        StoppedError: asked to stop while reading the texts.
    """
    body = load_gpt(config.base) if config.base is not None else GPT(config.model.build(tokenizer.vocab_size))
    longest(body.config, config)
    choose(body, config.trainable)  # refuses what the model does not have, before it reads
    body.requires_grad_(True)
    is_in_snapshots = folder is not None and folder.resume_step > 0 and config.trainable == "all"
    if config.num_reading_steps and not is_in_snapshots:  # else it goes on from the end of the reading
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
    mean_length = -(-len(ids) // len(texts))
    block_size = min(model.config.block_size, max(SHORTEST_WINDOW, mean_length))
    windows = TokenWindows(
        [ids],
        block_size=block_size,
        stride=block_size // 8,
        batch_size=READING_WINDOWS,
        seed=config.seed,
    )
    changes = {
        "steps": config.num_reading_steps,
        "batch_size": READING_WINDOWS,
        "optim": OptimConfig(lr=config.warmup_lm_lr),
        "ema": None,
    }
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
    train, valid = (
        TextBatches(
            part,
            labels,
            tokenizer,
            max_length=longest(model.config, config),
            cut=config.cut,
            is_multi_label=config.multi_label,
            is_weighted=config.balance == "weights",
        )
        for part in (split.train, split.valid)
    )
    if train.num_cut:
        logger.warning(
            "cut %d of %d training texts to %d tokens", train.num_cut, len(train.ids), longest(model.config, config)
        )
    batches = train.shuffled(config.batch_size, config.seed)
    valid_batches, _ = valid.by_length(config.micro_batch_size or config.batch_size)
    return Trainer(model, label_loss, batches, config, valid=valid_batches, title="classify", **keeping).fit()


def longest(shape: GPTConfig, config: ClassifyConfig) -> int:
    """Return how many tokens of a text are read.

    Raises:
        ValueError: more than the model's context is asked for.
    """
    context = shape.block_size
    if config.max_length is not None and config.max_length > context:
        raise ValueError(f"--max-length: {config.max_length} tokens, but the model's context is {context}")
    return config.max_length or context


def test(
    model: GPTClassifier, split: Split, labels: Sequence[str], tokenizer: Tokenizer, config: ClassifyConfig
) -> tuple[LabelMeasures, list[str]]:
    """Let a classifier label the test part; return what it said, and in words what of the texts was not read."""
    texts = TextBatches(split.test, labels, tokenizer, max_length=longest(model.config, config), cut=config.cut)
    return measure(model, texts, labels, is_multi_label=config.multi_label), texts.notes


def say_baselines(split: Split, labels: Sequence[str]) -> dict[str, Marks]:
    """Return what simple methods, trained on the same texts, say of the test part; their accuracy is logged."""
    train, held_out = ([example.text for example in part] for part in (split.train, split.test))
    found = label_baselines(train, mark(split.train, labels), held_out)
    actual = mark(split.test, labels)
    shares = ", ".join(f"{name} {accuracy(marks, actual):.2%}" for name, marks in found.items())
    logger.info("to compare with, on the test part: %s", shares)
    return found


def compare(model: GPTClassifier, split: Split, labels: Sequence[str], tokenizer: Tokenizer) -> Metrics:
    """Return the test accuracy of a classifier and of simple methods trained on the same texts."""
    texts = TextBatches(split.test, labels, tokenizer, max_length=model.config.block_size)
    found = {"this model": measure(model, texts, labels).accuracy}
    rows = say_baselines(split, labels).items()
    return found | {name: accuracy(marks, texts.marks) for name, marks in rows}


def describe(config: ClassifyConfig, report: LabelReport) -> Card:
    """Return what the model card says beside the facts of the run."""
    labels = report.measures.labels
    listed = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
    kind = "a text has any number of these labels" if config.multi_label else "a text has one of these labels"
    scores = report.scores()
    low, high = report.measures.accuracy_interval
    return Card(
        summary=f"A classifier; {kind}: {listed}.",
        data=" ".join(report.notes),
        metrics={
            **{name: f"{found['accuracy']:.2%}" for name, found in scores.items()},
            "this model, 95% interval": f"{low:.1%} to {high:.1%}",
            "this model, macro F1": f"{scores['this model']['macro_f1']:.2%}",
        },
        reproduce=repeat_command("classify", config.out),
        notes=f"Test accuracy is shown above; [{REPORT_FILE}]({REPORT_FILE}) has precision and recall of each class, "
        "confusions, calibration and the mistakes.",
    )
