"""Files of votes on two models' answers, in the formats there are, as duels."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data.errors import DataError
from training.data.feedback import parse_votes
from training.data.records import read_records
from training.evaluation.arena import Duel

OUTCOMES = {"first": 1.0, "second": 0.0, "tie": 0.5, "neither": 0.5}
"""What a vote of the service's feedback file means."""
WINNERS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5, "both_bad": 0.5}
"""What `winner` means in records of chat arenas."""


def read_duels(path: Path, flag: str = "VOTES") -> tuple[list[Duel], Counter[str]]:
    """Read votes from `.jsonl` or `.json`.

    A record is a vote of the feedback file (docs/feedback.md), `{"model_a", "model_b", "winner"}` as chat arenas
    publish them, or a list of two names, the winner's first.

    Returns:
        The duels in their order, and how many records are none, by reason.

    Raises:
        DataError: unreadable, a record is none of these, or no record is a duel.
    """
    records = read_records(path, flag)
    unused: Counter[str] = Counter()
    duels = []
    for duel in _feedback(path, records, flag, unused) if _is_feedback(records) else _plain(path, records, flag):
        if duel.first == duel.second:
            unused["both answers are the same model's"] += 1
        else:
            duels.append(duel)
    if not duels:
        reasons = ", ".join(f"{count} {reason}" for reason, count in unused.items())
        raise DataError(f"{flag}: {path}: no vote compares two models ({reasons})")
    return duels, unused


def _is_feedback(records: Sequence[Any]) -> bool:
    return isinstance(records[0], dict) and "answers" in records[0]


def _feedback(path: Path, records: Sequence[Any], flag: str, unused: Counter[str]) -> list[Duel]:
    votes = parse_votes(path, records, flag)
    last = {vote.id: number for number, vote in votes}
    duels = []
    for number, vote in votes:
        if last[vote.id] != number:
            unused["replaced by a later vote"] += 1
        elif vote.vote not in OUTCOMES:
            unused["on one answer only"] += 1
        else:
            first, second = vote.answers
            duels.append(Duel(first.model, second.model, OUTCOMES[vote.vote]))
    return duels


def _plain(path: Path, records: Sequence[Any], flag: str) -> list[Duel]:
    return [_to_duel(record, f"{flag}: {path}: record {number}") for number, record in enumerate(records, 1)]


def _to_duel(record: Any, where: str) -> Duel:
    if isinstance(record, list) and len(record) == 2 and all(isinstance(name, str) and name for name in record):
        return Duel(record[0], record[1], 1.0)
    if not isinstance(record, dict):
        raise DataError(f"{where} is no vote; give model_a, model_b and winner, or [winner, loser]")
    first, second, winner = (str(record.get(key) or "") for key in ("model_a", "model_b", "winner"))
    if not first or not second:
        raise DataError(f"{where} names no model_a and model_b")
    if winner in WINNERS:
        return Duel(first, second, WINNERS[winner])
    if winner in (first, second):
        return Duel(first, second, float(winner == first))
    raise DataError(f"{where}: winner is {winner!r}, not one of {', '.join(WINNERS)} or of the models")
