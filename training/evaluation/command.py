"""`groundup evaluate`: measure a checkpoint on whatever data is given, in one report."""

import logging
import sys
from collections.abc import Iterator

from model.directory import Checkpoint, CheckpointError, read_checkpoint
from model.tokenizer import Tokenizer
from training.config.evaluate import EvaluateConfig
from training.data.errors import DataError
from training.data.preference import is_preferences
from training.evaluation.measured import Measured
from training.evaluation.report import Report, Section, Value, check_place
from training.evaluation.sections.assistant import measure_answers, measure_preferences
from training.evaluation.sections.labels import measure_labels
from training.evaluation.sections.questions import measure_choices, measure_last_words, measure_mmlu
from training.evaluation.sections.tasks import measure_tasks
from training.evaluation.sections.text import holds_text, measure_text

logger = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> None:
    """Measure a checkpoint, print the figures as JSON and, if asked to, write a report.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is not of the kind that a measure needs.
        DataError: the data cannot be used with it.
        ReportError: the report cannot be written where it should go.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if config.out is not None:
        check_place(config.out)
    checkpoint = read_checkpoint(config.checkpoint)
    check_kind(config, checkpoint)
    measured = Measured(config, checkpoint, Tokenizer.from_directory(checkpoint.path))
    report = Report(f"{checkpoint.name}: report", describe(measured), list(sections(measured)))
    sys.stdout.write(report.figures_json())
    if config.out is not None:
        report.write(config.out)
        logger.info("wrote %s", config.out / "report.md")


def check_kind(config: EvaluateConfig, checkpoint: Checkpoint) -> None:
    """Refuse measures that the checkpoint is no model for.

    Raises:
        CheckpointError: naming the flag.
    """
    asked = {
        "--mmlu": bool(config.mmlu),
        "--choices": bool(config.choices),
        "--last-word": bool(config.last_word),
        "--harness.tasks": bool(config.harness.tasks),
    }
    for flag, is_asked in asked.items():
        if is_asked and checkpoint.kind == "classifier":
            raise CheckpointError(f"{flag}: {checkpoint.path} holds a classifier; give a language model")
    if config.reference is not None and checkpoint.kind != "chat":
        raise CheckpointError(f"--reference: {checkpoint.path} is no assistant; only assistants are compared with one")
    if config.harness.chat and checkpoint.kind != "chat":
        raise CheckpointError(f"--harness.chat: {checkpoint.path} has no chat template")


def sections(measured: Measured) -> Iterator[Section]:
    """Measure what the settings ask for, one section after another."""
    config, kind = measured.config, measured.checkpoint.kind
    if config.data is not None:
        if kind == "classifier":
            yield measure_labels(measured, config.data)
        elif kind == "chat" and not holds_text(config.data) and is_preferences(config.data):
            yield measure_preferences(measured, config.data)
        elif config.reference is not None:
            raise DataError(
                f"--reference: an assistant is compared on preferences, which {config.data} does not hold; leave it out"
            )
        else:
            is_text = kind == "base" or holds_text(config.data)
            yield (measure_text if is_text else measure_answers)(measured, config.data)
    if config.mmlu is not None:
        yield measure_mmlu(measured, config.mmlu)
    if config.choices:
        yield measure_choices(measured, config.choices)
    if config.last_word is not None:
        yield measure_last_words(measured, config.last_word)
    if config.harness.tasks:
        yield measure_tasks(measured)


def describe(measured: Measured) -> dict[str, Value]:
    """Return what a report says first: the model, and on what it was measured."""
    config, checkpoint = measured.config, measured.checkpoint
    about: dict[str, Value] = {
        "checkpoint": str(config.checkpoint),
        "kind": checkpoint.kind,
        "context (tokens)": checkpoint.config.block_size,
    }
    places = {
        "data": config.data,
        "MMLU": config.mmlu,
        "choices": ", ".join(map(str, config.choices)),
        "last words": config.last_word,
        "harness": ", ".join(config.harness.tasks),
        "reference": config.reference,
        "limit": config.limit,
    }
    return about | {name: place if isinstance(place, int) else str(place) for name, place in places.items() if place}
