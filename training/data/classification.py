"""Labelled texts: read, balance, split, and batch with right padding.

Models and losses see only the batches; how a text becomes ids is the tokenizer's business.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.tokenizer import Tokenizer
from training.data.batches import InOrder, share
from training.data.errors import DataError
from training.data.order import LengthGroupedOrder
from training.loss import Batch

TEXT_COLUMNS = ("text", "message", "sms", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "class", "category", "target", "sentiment")
"""Usual names, in order of preference."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts of a data set that share no example."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]


def read_examples(path: Path, text_column: str | None = None, label_column: str | None = None) -> list[Example]:
    """Read labelled texts from `.jsonl`, `.csv`, `.tsv`, or lines of label TAB text without a header.

    Tab-separated files know no quotes: a `"` is a character like any other.

    Raises:
        DataError: unreadable, empty, a column is missing, a row lacks a value, or there is one class only.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"--data: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"--data: {path}: not UTF-8 at byte {error.start}") from None
    if not content.strip():
        raise DataError(f"--data: {path}: the file is empty")
    rows = _read_jsonl(path, content) if path.suffix in (".jsonl", ".json") else _read_table(path, content)
    text_key = _find_column(path, rows[0], text_column, TEXT_COLUMNS, "--text-column")
    label_key = _find_column(path, rows[0], label_column, LABEL_COLUMNS, "--label-column")
    examples = []
    for number, row in enumerate(rows, 1):
        text, label = row.get(text_key), row.get(label_key)
        if text is None or label is None or not str(text).strip() or not str(label).strip():
            raise DataError(f"--data: {path}: row {number} lacks a text or a label")
        examples.append(Example(str(text), str(label)))
    if len({example.label for example in examples}) < 2:
        raise DataError(f"--data: {path}: every label is {examples[0].label!r}; a classifier needs two classes or more")
    return examples


def _read_jsonl(path: Path, content: str) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"--data: {path}: line {number} is not JSON: {error.msg}") from None
            if not isinstance(row, dict):
                raise DataError(f"--data: {path}: line {number} is not an object")
            rows.append(row)
    return rows


def _read_table(path: Path, content: str) -> list[dict[str, object]]:
    lines = content.splitlines(keepends=True)
    if path.suffix == ".csv":
        table = list(csv.reader(lines))
    else:
        table = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    table = [row for row in table if row]
    has_header = path.suffix == ".csv" or any(name.lower() in TEXT_COLUMNS + LABEL_COLUMNS for name in table[0])
    header = table.pop(0) if has_header else ["label", "text"]
    if not table:
        raise DataError(f"--data: {path}: there is a header but no row")
    for number, row in enumerate(table, 1):
        if len(row) != len(header):
            raise DataError(f"--data: {path}: row {number} has {len(row)} columns instead of {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in table]


def _find_column(path: Path, row: dict[str, object], asked: str | None, usual: Sequence[str], flag: str) -> str:
    names = {name.lower(): name for name in row}
    found = [names[name] for name in ([asked.lower()] if asked else usual) if name in names]
    if not found:
        wanted = repr(asked) if asked else "any of " + ", ".join(usual)
        raise DataError(f"--data: {path}: no column {wanted} among {', '.join(row)}; name one with {flag}")
    return found[0]


def without_duplicates(examples: Iterable[Example]) -> list[Example]:
    """Keep the first of all examples with the same text, whatever their labels."""
    seen: dict[str, Example] = {}
    for example in examples:
        seen.setdefault(example.text, example)
    return list(seen.values())


def balanced(examples: Sequence[Example], seed: int) -> list[Example]:
    """Drop random examples until every class is as large as the smallest."""
    by_label = group_by_label(examples)
    size = min(map(len, by_label.values()))
    rng = np.random.default_rng(seed)
    return [members[i] for members in by_label.values() for i in np.sort(rng.permutation(len(members))[:size])]


def split_examples(examples: Sequence[Example], valid_fraction: float, test_fraction: float, seed: int) -> Split:
    """Split each class by the same shares, in random order.

    Raises:
        DataError: a class is too small to be on all three sides.
    """
    rng = np.random.default_rng(seed)
    train: list[Example] = []
    valid: list[Example] = []
    test: list[Example] = []
    for label, members in group_by_label(examples).items():
        order = [members[i] for i in rng.permutation(len(members))]
        num_valid, num_test = round(valid_fraction * len(order)), round(test_fraction * len(order))
        if min(num_valid, num_test, len(order) - num_valid - num_test) < 1:
            raise DataError(f"--data: class {label!r} has {len(order)} texts, too few to train, validate and test on")
        valid += order[:num_valid]
        test += order[num_valid : num_valid + num_test]
        train += order[num_valid + num_test :]
    return Split(train, valid, test)


def group_by_label(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Sort examples into classes, by name."""
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    return dict(sorted(by_label.items()))


def class_sizes(examples: Iterable[Example]) -> str:
    """Say how many examples each class has, such as `ham 747, spam 747`."""
    counts = Counter(example.label for example in examples)
    return ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))


class TextBatches:
    """Encoded texts as batches of `idx` (B, T), `lengths` (B,) and `labels` (B,), padded on the right.

    Texts longer than `max_length` lose their end; `num_cut` says how many.
    """

    def __init__(
        self, examples: Sequence[Example], labels: Sequence[str], tokenizer: Tokenizer, *, max_length: int
    ) -> None:
        encoded = [tokenizer.encode(example.text) or [tokenizer.eos_id] for example in examples]
        self.num_cut = sum(len(ids) > max_length for ids in encoded)
        self.ids = [ids[:max_length] for ids in encoded]
        index = {label: i for i, label in enumerate(labels)}
        unknown = sorted({example.label for example in examples} - set(index))
        if unknown:
            raise DataError(f"--data: label {unknown[0]!r} is none of the classifier's: {', '.join(labels)}")
        self.labels = [index[example.label] for example in examples]
        self.pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id

    def shuffled(self, batch_size: int, seed: int) -> "ShuffledTexts":
        """Return the batches to train on, one for each step."""
        return ShuffledTexts(self, batch_size, seed)

    def in_order(self, batch_size: int) -> InOrder:
        """Return every text once, in the order given."""
        return InOrder(self.collate, range(len(self.ids)), batch_size)

    def collate(self, items: Sequence[int]) -> Batch:
        """Put some texts into one batch, as wide as the longest of them."""
        lengths = torch.tensor([len(self.ids[i]) for i in items])
        idx = torch.full((len(items), int(lengths.max())), self.pad_id)
        for row, i in enumerate(items):
            idx[row, : len(self.ids[i])] = torch.tensor(self.ids[i])
        return {"idx": idx, "lengths": lengths, "labels": torch.tensor([self.labels[i] for i in items])}


class ShuffledTexts:
    """The batch of each step, of texts similar in length."""

    def __init__(self, texts: TextBatches, batch_size: int, seed: int) -> None:
        self._texts = texts
        self._order = LengthGroupedOrder([len(ids) for ids in texts.ids], batch_size, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch, as wide as its longest text on any rank."""
        return share(self._texts.collate(self._order(step).tolist()), rank, world_size)
