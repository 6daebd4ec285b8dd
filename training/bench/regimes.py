"""`groundup bench-classify`: what of a model should train to classify? Every way with several seeds, in one table.

A finished cell is a line of a file at once, so that a bench that was stopped goes on where it stood.
"""

import hashlib
import json
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.bench.report import describe_machine, print_section, print_table
from training.bench.settings import ClassifyBenchSettings
from training.classify import build_classifier, choose_tokenizer, classify, longest, say_baselines
from training.config.classify import ClassifyConfig
from training.data.classification import TextBatches
from training.data.label_parts import load_split
from training.data.labelled import label_names, mark
from training.evaluation.labels import accuracy, macro_f1, measure
from training.finetune import base_digest, prepare
from training.machine.device import pick_device, set_up_torch
from training.recipe import must_be_over

ALL = "whole text"
FIRST = "first token"
"""What a classifier sees. Attention is causal, so that a text cut to its first token is what pooling there sees."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to label texts, trained and tested on one split."""

    row: str
    sight: str
    seed: int
    digest: str
    """Of settings, base and data."""
    test: float
    test_f1: float
    valid: float | None
    """None for methods that choose nothing by validation texts."""
    best_step: int
    num_trained: int
    """Weights that were trained."""
    cpu_s: float


def run(settings: ClassifyBenchSettings) -> None:
    """Train and test whatever is not in the file of finished cells yet, and print the table.

    Raises:
        CheckpointError: the base cannot be used.
        DataError: the texts cannot be used.
        StoppedError: asked to stop.
        ValueError: the recipe or a row cannot be read.
    """
    plans = list(make_plans(settings))
    done = read_cells(settings.out)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with settings.out.open("a", encoding="utf-8") as file:
        if file.tell() and not settings.out.read_bytes().endswith(b"\n"):
            file.write("\n")  # behind a line that a kill cut short
        for row, sight, config in plans:
            key = (row, sight, config.seed, digest(config))
            if key not in done:
                for cell in work(row, sight, config, key[-1]):
                    file.write(json.dumps(asdict(cell)) + "\n")
                    file.flush()
                    done[cell.row, cell.sight, cell.seed, cell.digest] = cell
                    show(cell)
    print_section(f"Hardware: {describe_machine(pick_device('cpu'))}")
    wanted = {digest(config) for _, _, config in plans}
    print_cells([cell for cell in done.values() if cell.digest in wanted])


def make_plans(settings: ClassifyBenchSettings) -> Iterator[tuple[str, str, ClassifyConfig]]:
    """Yield every row, what it sees, and its settings, seed by seed, so that a stopped bench has whole seeds.

    Raises:
        ValueError: the recipe or a row cannot be read.
    """
    try:
        shared = tomllib.loads(settings.recipe.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--recipe: {settings.recipe}: {error}") from None
    base = {} if settings.base is None else {"base": settings.base}
    data = {} if settings.data is None else {"data": settings.data}
    for seed in settings.seeds:
        for sight in settings.sights:
            for row, changes in settings.rows.items():
                own = {"seed": seed, "num_threads": settings.num_threads, "out": Path("bench")}
                own |= {"split_seed": seed} if settings.vary_split else {}
                first = {"max_length": 1} if sight == FIRST else {}
                try:
                    config = ClassifyConfig.model_validate(
                        {**merged(merged(shared, changes), {**base, **data}), **own, **first}
                    )
                except ValidationError as error:
                    raise ValueError(f"--rows: {row}: {error.errors()[0]['msg']}") from None
                yield row, sight, config


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with some of them changed, tables within tables too."""
    out = dict(settings)
    for name, value in changes.items():
        is_table = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if is_table else value
    return out


def digest(config: ClassifyConfig) -> str:
    """Return a digest of all that shapes a cell: settings, weights it starts from, texts."""
    found = hashlib.sha256(config.model_dump_json(exclude={"num_threads", "out"}).encode())
    if config.base is not None:
        found.update(base_digest(config.base).encode())
    for path in (config.data, config.valid_data, config.test_data):
        if path is not None and path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def read_cells(path: Path) -> dict[tuple[str, str, int, str], Cell]:
    """Return the finished cells of a file; a last line that was cut short is none."""
    cells = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            cell = Cell(**json.loads(line))
        except (ValueError, TypeError):
            continue
        cells[cell.row, cell.sight, cell.seed, cell.digest] = cell
    return cells


def work(row: str, sight: str, config: ClassifyConfig, key: str) -> Iterator[Cell]:
    """Train and test one cell."""
    started = time.process_time()
    set_up_torch(config)
    split = load_split(config)
    labels = label_names(split.train)
    tokenizer = choose_tokenizer(config, split.train)
    model = build_classifier(config, tokenizer, split.train, num_labels=len(labels))
    prepare(model, config)
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    state = classify(model, split, labels, tokenizer, config)
    must_be_over(state)
    valid, test = (
        measure(
            model,
            TextBatches(part, labels, tokenizer, max_length=longest(model.config, config), cut=config.cut),
            labels,
            is_multi_label=config.multi_label,
        )
        for part in (split.valid, split.test)
    )
    cpu_s = time.process_time() - started
    yield Cell(
        *(row, sight, config.seed, key, test.accuracy, test.macro_f1, valid.accuracy),
        best_step=state.best_step,
        num_trained=num_trained,
        cpu_s=cpu_s,
    )
    if sight == ALL:
        actual = mark(split.test, labels)
        for name, marks in say_baselines(split, labels).items():
            scores = accuracy(marks, actual), macro_f1(marks, actual)
            yield Cell(name, sight, config.seed, key, *scores, None, best_step=0, num_trained=0, cpu_s=0.0)


def show(cell: Cell) -> None:
    """Say on standard error how a cell went."""
    how = f", valid {cell.valid:.2%}, step {cell.best_step}, {cell.cpu_s:.1f} CPU-s" if cell.valid is not None else ""
    sys.stderr.write(f"{cell.row}, {cell.sight}, seed {cell.seed}: test {cell.test:.2%}{how}\n")
    sys.stderr.flush()


def print_cells(cells: Sequence[Cell]) -> None:
    """Print mean and range of each row."""
    rows: dict[tuple[str, str], dict[int, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.row, cell.sight), {})[cell.seed] = cell
    table = []
    for (row, sight), by_seed in sorted(rows.items(), key=lambda item: next(iter(item[1].values())).num_trained == 0):
        found = list(by_seed.values())
        is_trained = found[0].num_trained > 0
        table.append(
            (
                row,
                sight,
                f"{found[0].num_trained:,}" if is_trained else "-",
                percent([cell.test for cell in found]),
                f"{statistics.mean(cell.test_f1 for cell in found):.2%}",
                percent([cell.valid for cell in found if cell.valid is not None]) if is_trained else "-",
                str(len(found)),
                f"{statistics.mean(cell.cpu_s for cell in found):.0f}" if is_trained else "-",
            )
        )
    print_table(
        ("", "sees", "weights trained", "test accuracy", "macro F1", "validation accuracy", "seeds", "CPU s"), table
    )


def percent(shares: Sequence[float]) -> str:
    """Return mean and range."""
    return f"{statistics.mean(shares):.2%} ({min(shares):.1%} to {max(shares):.1%})"
