"""Section: the labels that a classifier gives."""

import json
from pathlib import Path
from typing import Literal

from model.checkpoint import load_classifier
from model.directory import Checkpoint
from training.config.evaluate import EvaluateConfig
from training.config.label_names import renaming
from training.data.classification import TextBatches
from training.data.labelled import Columns, read_examples
from training.evaluation.labels import measure
from training.evaluation.measured import Measured
from training.evaluation.report import Section
from training.run.folder import read_settings


def measure_labels(measured: Measured, path: Path) -> Section:
    """Score a file of labelled texts with a classifier.

    Raises:
        DataError: the file cannot be read, or has a label that the classifier lacks.
    """
    from training.evaluation.label_report import MISTAKES_FILE, LabelReport  # draws, which takes a second to import

    config, checkpoint = measured.config, measured.checkpoint
    separator = config.label_separator if checkpoint.is_multi_label else None
    columns = Columns(config.text_column, config.label_column, separator, renaming(config.label_names))
    examples = read_examples(path, columns)[: config.limit]
    max_length, cut = reading_of(checkpoint, config)
    texts = TextBatches(examples, checkpoint.labels, measured.tokenizer, max_length=max_length, cut=cut)
    model = load_classifier(checkpoint.path, device=measured.device)
    found = measure(
        model, texts, checkpoint.labels, is_multi_label=checkpoint.is_multi_label, batch_size=config.batch_size
    )
    report = LabelReport(checkpoint.name, found, [example.text for example in examples], notes=texts.notes)
    mistakes = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in report.mistakes())
    files = report.pictures() | {MISTAKES_FILE: mistakes.encode()} if config.out else {}
    text = report.sections().strip().replace("\n## ", "\n### ")
    return Section("labels", "Labels", found.metrics(), text, files=files, details=report.to_json())


def reading_of(checkpoint: Checkpoint, config: EvaluateConfig) -> tuple[int, Literal["end", "start"]]:
    """Return how many tokens of a text a classifier reads and what longer ones lose: as in training, if it says so."""
    trained = read_settings(checkpoint.path) or {}
    context, asked = checkpoint.config.block_size, trained.get("max_length")
    max_length = min(context, asked) if isinstance(asked, int) else context
    if config.cut is not None:
        return max_length, config.cut
    return max_length, "start" if trained.get("cut") == "start" else "end"
