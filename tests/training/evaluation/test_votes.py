import json
from pathlib import Path

import pytest

from training.data.errors import DataError
from training.evaluation.arena import Duel
from training.evaluation.votes import read_duels


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def vote(number: int, kind: str, *models: str) -> dict[str, object]:
    answers = [{"model": model, "content": model} for model in models]
    return {
        "id": str(number),
        "created": 0,
        "messages": [{"role": "user", "content": "Hi?"}],
        "answers": answers,
        "vote": kind,
    }


def test_votes_of_the_feedback_file_are_duels(tmp_path: Path) -> None:
    records = [
        vote(1, "first", "a", "b"),
        vote(2, "neither", "a", "b"),
        vote(3, "up", "a"),
        vote(4, "second", "a", "a"),
        vote(1, "second", "a", "b"),
    ]
    duels, unused = read_duels(write(tmp_path / "a.jsonl", *records))
    assert duels == [Duel("a", "b", 0.5), Duel("a", "b", 0.0)]
    assert sum(unused.values()) == 3


def test_votes_of_arenas_and_pairs_of_names_are_duels(tmp_path: Path) -> None:
    records = [
        {"model_a": "x", "model_b": "y", "winner": "model_b"},
        {"model_a": "x", "model_b": "y", "winner": "x"},
        {"model_a": "x", "model_b": "y", "winner": "tie (bothbad)"},
        ["y", "x"],
    ]
    duels, unused = read_duels(write(tmp_path / "a.jsonl", *records))
    assert duels == [Duel("x", "y", 0.0), Duel("x", "y", 1.0), Duel("x", "y", 0.5), Duel("y", "x", 1.0)]
    assert not unused


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"model_a": "x", "model_b": "y", "winner": "z"}, "record 1: winner is 'z'"),
        ({"model_a": "x", "winner": "x"}, "record 1 names no model_a and model_b"),
        (["x"], "record 1 is no vote"),
        (vote(1, "up", "a"), "no vote compares two models"),
        ({**vote(1, "first", "a", "b"), "vote": "both"}, "record 1 is no vote"),
    ],
)
def test_files_without_votes_are_refused(tmp_path: Path, record: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"VOTES: .*{complaint}"):
        read_duels(write(tmp_path / "a.jsonl", record))
