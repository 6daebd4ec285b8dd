"""Runs of several contenders in turn, and tables of what they took.

On a machine that others use too only ratios mean anything, and only those of runs side by side: so each repeat runs
every contender once, and medians are reported.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

REST_S = 0.3
"""Pause between two runs: threads of a library may go on spinning for a fifth of a second."""


@dataclass
class Timings:
    """Seconds of each run, by contender and number of requests."""

    num_new: int
    whole_s: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """From the prompts to the last token."""
    first_s: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """From the prompts to the first token of all."""

    def add(self, name: str, count: int, whole_s: float, first_s: float | None = None) -> None:
        """Note one run."""
        self.whole_s.setdefault(name, {}).setdefault(count, []).append(whole_s)
        if first_s is not None:
            self.first_s.setdefault(name, {}).setdefault(count, []).append(first_s)

    def rates(self, name: str, count: int) -> list[float]:
        """Tokens per second of each run, prompts included."""
        return [count * self.num_new / seconds for seconds in self.whole_s[name][count]]

    def decode_rates(self, name: str, count: int) -> list[float]:
        """Tokens per second of each run after the first token."""
        pairs = zip(self.whole_s[name][count], self.first_s[name][count], strict=True)
        return [count * (self.num_new - 1) / max(whole_s - first_s, 1e-9) for whole_s, first_s in pairs]


def rest() -> None:
    """Wait until the contender before has come to rest."""
    time.sleep(REST_S)


Rates = Callable[[str, int], list[float]]


def rate_table(rates: Rates, names: Sequence[str], counts: Iterable[int]) -> str:
    """Write median tokens per second as a markdown table, a row for each number of requests."""
    rows = [[f"{statistics.median(rates(name, count)):.1f}" for name in names] for count in counts]
    return _table(["requests", *names], [[str(count), *row] for count, row in zip(counts, rows, strict=True)])


def ratio_table(rates: Rates, pairs: Iterable[tuple[str, str]], counts: Sequence[int]) -> str:
    """Write how many times as fast the first of each pair is: ratio of medians, and the range over single repeats."""
    return _table(
        ["ratio", *(f"{count}" for count in counts)],
        [
            [f"{ours} / {theirs}", *(_ratio(rates(ours, count), rates(theirs, count)) for count in counts)]
            for ours, theirs in pairs
        ],
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ours) / statistics.median(theirs):.2f} ({min(each):.2f} to {max(each):.2f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
