"""Metrics of a run as JSON lines: one record for each measurement, readable while the run goes on."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

Record = dict[str, Any]


class MetricsLog:
    """Keeps the records of a run, and writes them to a file, if it is given one, as they come."""

    def __init__(self, path: Path | None = None) -> None:
        self.records: list[Record] = []
        self._path = path
        self._file: TextIO | None = None

    def write(self, kind: str, step: int, **metrics: float) -> None:
        """Add one record, such as `train` or `valid`, taken after a number of steps."""
        record: Record = {"kind": kind, "step": step, **metrics}
        self.records.append(record)
        if self._path is not None and self._file is None:
            self._file = self._path.open("w", encoding="utf-8", buffering=1)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")

    def series(self, kind: str, metric: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric, for a plot."""
        chosen = [r for r in self.records if r["kind"] == kind and metric in r]
        return [r["step"] for r in chosen], [r[metric] for r in chosen]

    def to_jsonl(self) -> str:
        """Return every record, one a line."""
        return "".join(json.dumps(record) + "\n" for record in self.records)

    def close(self) -> None:
        """Close the file; the records stay."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
