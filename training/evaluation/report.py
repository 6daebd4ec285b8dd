"""One report of whatever was measured: markdown with tables and pictures, and JSON with all figures.

It knows numbers and names, not what they mean.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.directory import CONFIG_FILE

Value = float | int | str
Figures = Mapping[str, Value]

LABELS = {
    "acc": "accuracy, by the likeliest answer",
    "acc_norm": "accuracy, by the likeliest answer per character",
    "letter": "accuracy, by letter",
    "rouge_l": "ROUGE-L",
    "loss": "loss (nats per target)",
    "bits_per_byte": "bits per byte",
    "macro_f1": "macro F1",
    "token_accuracy": "tokens of wanted answers guessed right",
    "num_cut": "prompts cut to fit the context",
    "commonest": "always the commonest answer",
}
"""Names of figures that do not explain themselves."""


class ReportError(OSError):
    """A report cannot be written; the message names the place."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head, with a caption."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Value]]

    def markdown(self) -> str:
        """Return the table as markdown."""
        lines = [self.head, ["---"] * len(self.head), *([render(cell) for cell in row] for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{self.caption}\n\n{body}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG beside the report."""

    name: str
    caption: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """What one measure found."""

    name: str
    """Key in the JSON."""
    title: str
    figures: Figures
    """`x_low` and `x_high` are the ends of the 95% interval of `x`."""
    text: str = ""
    """Markdown that stands after the figures."""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files by name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only the JSON holds."""

    def markdown(self) -> str:
        """Return the section as markdown."""
        parts = [f"## {self.title}", figure_table(self.figures)] if self.figures else [f"## {self.title}"]
        parts += [self.text] if self.text else []
        parts += [table.markdown() for table in self.tables]
        parts += [f"![{picture.caption}]({picture.name})" for picture in self.pictures]
        return "\n\n".join(parts)


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one checkpoint, one set of answers or one file of votes."""

    title: str
    about: Figures
    """What was measured, and how."""
    sections: Sequence[Section]

    def markdown(self) -> str:
        """Return the report as markdown."""
        about = "\n".join(f"- {name.replace('_', ' ')}: {render(value)}" for name, value in self.about.items())
        return "\n\n".join([f"# {self.title}", about, *(each.markdown() for each in self.sections)]) + "\n"

    def figures_json(self) -> str:
        """Return the figures of each section by its name as JSON; what is no finite number is null."""
        return json.dumps({each.name: _plain(dict(each.figures)) for each in self.sections}, indent=2) + "\n"

    def json(self) -> str:
        """Return everything but pictures as JSON; what is no finite number is null."""
        sections = {
            section.name: {
                "figures": _plain(dict(section.figures)),
                "tables": [
                    {
                        "caption": each.caption,
                        "rows": [dict(zip(each.head, _plain(row), strict=True)) for row in each.rows],
                    }
                    for each in section.tables
                ],
                **({"details": _plain(dict(section.details))} if section.details else {}),
            }
            for section in self.sections
        }
        return (
            json.dumps({"title": self.title, "about": _plain(dict(self.about)), "sections": sections}, indent=2) + "\n"
        )

    def write(self, folder: Path) -> None:
        """Write `report.md`, `report.json` and the pictures into a folder, which is made if it is not there.

        Raises:
            ReportError: the folder cannot be written to.
        """
        files = {"report.md": self.markdown().encode(), "report.json": self.json().encode()}
        for section in self.sections:
            files |= {picture.name: picture.content for picture in section.pictures} | dict(section.files)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            raise ReportError(f"--out: {folder} cannot be written: {error.strerror}") from None


def check_place(folder: Path) -> None:
    """Refuse a place for a report before anything is measured for it; nothing is made yet.

    Raises:
        ReportError: nothing can be written there, or it is a checkpoint, whose answers would be replaced.
    """
    if (folder / CONFIG_FILE).exists():
        raise ReportError(f"--out: {folder} holds a checkpoint; give the report a folder of its own")
    nearest = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not nearest.is_dir():
        raise ReportError(f"--out: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK):
        raise ReportError(f"--out: {folder} cannot be written: no right to write in {nearest}")


def figure_table(figures: Figures) -> str:
    """Return figures as a table of two columns, each with its interval if it has one."""
    lines = ["| measure | value |", "| --- | --- |"]
    for name, value in figures.items():
        if name.endswith(("_low", "_high")):
            continue
        text = render(value)
        if f"{name}_low" in figures:
            text += f" ({render(figures[f'{name}_low'])} to {render(figures[f'{name}_high'])})"
        lines.append(f"| {LABELS.get(name) or name.removeprefix('num_').replace('_', ' ')} | {text} |")
    return "\n".join(lines)


def render(value: Value) -> str:
    """Write a value for a table: four digits of a measure, all of a count, text without what would break the row."""
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ")
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if math.isnan(value) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
