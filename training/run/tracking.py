"""Metrics of a run as JSON lines: one record for each measurement, readable while the run goes on.

They survive whatever ends a run: a resumed one goes on behind the records of its snapshot, without gap or repetition.
On request the same records also become TensorBoard events.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

Record = dict[str, Any]


class TrackingError(ValueError):
    """Metrics that cannot be written or read; the message says what to do."""


class MetricsLog:
    """Keeps the records of a run, and writes them to a file, if it is given one, as they come.

    Args:
        path: file of JSON lines; None: memory only.
        resume_step: step that an interrupted run goes on from: its records up to there are kept, the later ones and
            a torn last line go. None: a new run, whose first record clears the file.
        tensorboard: folder that receives the same as TensorBoard events; None: none.

    Raises:
        TrackingError: TensorBoard is asked for but not installed, or the file holds something else.
    """

    def __init__(
        self, path: Path | None = None, *, resume_step: int | None = None, tensorboard: Path | None = None
    ) -> None:
        self.records: list[Record] = []
        self._path = path
        self._file: TextIO | None = None
        self._events = open_events(tensorboard, resume_step) if tensorboard is not None else None
        if path is not None and resume_step is not None and path.exists():
            self.records = [record for record in read_records(path) if record["step"] <= resume_step]
            replace(path, self.to_jsonl())
            self._file = path.open("a", encoding="utf-8", buffering=1)

    @property
    def last_step(self) -> int:
        """Step of the newest record."""
        return int(self.records[-1]["step"]) if self.records else 0

    def write(self, kind: str, step: int, **values: float | str) -> None:
        """Add one record, such as `train`, `valid` or `sample`, taken after a number of steps."""
        record: Record = {"kind": kind, "step": step, **values}
        self.records.append(record)
        if self._path is not None and self._file is None:
            self._file = self._path.open("w", encoding="utf-8", buffering=1)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for name, value in values.items():
                add = self._events.add_text if isinstance(value, str) else self._events.add_scalar
                add(f"{kind}/{name}", value, step)

    def sync(self) -> None:
        """Make sure that what was written survives a loss of power."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def series(self, kind: str, metric: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric, for a plot."""
        chosen = [r for r in self.records if r["kind"] == kind and metric in r]
        return [r["step"] for r in chosen], [r[metric] for r in chosen]

    def to_jsonl(self) -> str:
        """Return every record, one a line."""
        return "".join(json.dumps(record) + "\n" for record in self.records)

    def close(self) -> None:
        """Close what is written to; the records stay."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file of JSON lines, but for a last line that was not finished.

    Raises:
        TrackingError: a line is no record.
    """
    lines = path.read_bytes().split(b"\n")  # what follows the last line break was being written
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            is_record = isinstance(record["kind"], str) and isinstance(record["step"], int)
        except (ValueError, TypeError, KeyError):
            is_record = False
        if not is_record:
            raise TrackingError(f"{path}: line {number} is no record of a metric")
        yield record


def replace(path: Path, text: str) -> None:
    """Replace a file in one go, so that it is never half written."""
    aside = path.with_name(path.name + ".new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def open_events(folder: Path, resume_step: int | None) -> Any:
    """Return a writer of TensorBoard events, which hides those after the step that a run goes on from.

    Raises:
        TrackingError: TensorBoard is not installed, or the folder cannot be written to.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrackingError(
            "--tensorboard: TensorBoard is not installed; pip install 'groundup[tensorboard]'"
        ) from None
    try:
        return SummaryWriter(str(folder), purge_step=None if resume_step is None else resume_step + 1)
    except OSError as error:
        raise TrackingError(f"--tensorboard: {folder} cannot be written to: {error.strerror}") from None
