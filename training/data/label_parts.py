"""The labelled texts of a run: read from its files, cleaned, parted, and all of it said.

How texts are parted is `label_split`'s knowledge, how files are read `labelled`'s.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from training.config.classify import ClassifyConfig
from training.config.label_names import renaming
from training.data.errors import DataError
from training.data.label_split import (
    Split,
    balanced,
    class_sizes,
    count_contradictions,
    split_examples,
    without_duplicates,
    without_those_of,
)
from training.data.labelled import Columns, Example, label_names, mark, read_examples

logger = logging.getLogger(__name__)


def load_split(config: ClassifyConfig) -> Split:
    """Read the texts, drop repeats and balance if told to, and split; what was dropped is logged and noted.

    Raises:
        DataError: the texts cannot be used.
    """
    separator = config.label_separator if config.multi_label else None
    columns = Columns(config.text_column, config.label_column, separator, renaming(config.label_names))
    known = read_examples(config.data, columns)
    require_classes(known, config.data)
    valid, test = (
        read_examples(path, columns, flag=flag) if path is not None else []
        for path, flag in ((config.valid_data, "--valid-data"), (config.test_data, "--test-data"))
    )
    in_use = label_names([*known, *valid, *test])
    for old, new in renaming(config.label_names).items():
        if new not in in_use:
            raise DataError(f"--label-names: no text has the label {old!r}, which is to be called {new!r}")
    notes = [f"`{config.data.name}` has {len(known):,} texts ({class_sizes(known)})."]
    if config.deduplicate:
        known, valid = drop_repeats(config, known, valid, test, notes)
    if config.balance == "undersample-all":
        known = balanced(known, config.split_seed)
        notes.append(f"Classes evened out before the split leave {len(known):,}.")
    valid_share = config.valid_fraction if config.valid_data is None else 0.0
    test_share = config.test_fraction if config.test_data is None else 0.0
    split = split_examples(known, valid_share, test_share, config.split_seed)
    train, valid, test = split.train, valid or split.valid, test or split.test
    if not config.deduplicate:
        note_leaks(train, test, notes)
    if config.balance == "undersample":
        train = balanced(train, config.split_seed)
        notes.append("Texts of the larger classes were dropped from the training part.")
    if config.balance == "weights":
        notes.append("Classes have the same say in the loss, whatever their sizes.")
    require_classes(train, config.data)
    labels = label_names(train)
    mark(valid, labels, flag="--valid-data" if config.valid_data else "--data")
    mark(test, labels, flag="--test-data" if config.test_data else "--data")
    notes.append(
        f"{len(train):,} texts to train on ({class_sizes(train)}), {len(valid):,} to choose the weights by, "
        f"{len(test):,} to test on{_of(config.test_data)}."
    )
    for note in notes:
        logger.info(note)
    return Split(train, valid, test, notes)


def drop_repeats(
    config: ClassifyConfig,
    known: Sequence[Example],
    valid: Sequence[Example],
    test: Sequence[Example],
    notes: list[str],
) -> tuple[list[Example], list[Example]]:
    """Return the texts to part and to validate on without those that occur before, or in the test data."""
    unique = without_duplicates(known)
    if len(unique) < len(known):
        contradictions = count_contradictions(known)
        odd = f" ({contradictions:,} of the texts have different labels in different places)" if contradictions else ""
        notes.append(
            f"{len(known) - len(unique):,} that repeat an earlier one but for letter case and white space were "
            f"dropped{odd}."
        )
    kept_valid = without_those_of(valid, test)
    kept = without_those_of(unique, [*test, *kept_valid])
    for name, before, after in (("training", unique, kept), ("validation", valid, kept_valid)):
        if len(after) < len(before):
            notes.append(f"{len(before) - len(after):,} {name} texts that also occur in held-out files were dropped.")
    for path, examples in ((config.valid_data, valid), (config.test_data, test)):
        if path is not None and (num_repeats := len(examples) - len(without_duplicates(examples))):
            notes.append(f"{num_repeats:,} texts of `{path.name}` repeat an earlier one; they stay, as published.")
    for flag, path, before, after in (
        ("--data", config.data, known, kept),
        ("--valid-data", config.valid_data, valid, kept_valid),
    ):
        if before and not after:
            raise DataError(f"{flag}: {path}: every text of it also occurs in what is held out for later")
    return kept, kept_valid


def note_leaks(train: Sequence[Example], test: Sequence[Example], notes: list[str]) -> None:
    """Say how much of the test is also trained on."""
    num_leaks = len(test) - len(without_those_of(test, train))
    notes.append(f"Repeated texts stay; {num_leaks:,} of the {len(test):,} test texts are also trained on.")


def require_classes(examples: Sequence[Example], path: Path) -> None:
    """Refuse texts that have nothing to tell apart."""
    names = label_names(examples)
    if len(names) < 2:
        found = f"every label is {names[0]!r}" if names else "no text has a label"
        raise DataError(f"--data: {path}: {found}; a classifier needs two classes or more")


def _of(path: Path | None) -> str:
    return f" (`{path.name}`)" if path is not None else ""
