import re
from pathlib import Path
from typing import Any

import pytest

from training.data.errors import DataError
from training.data.feedback import Vote, choices, parse_votes

DOCUMENT = Path(__file__).parents[3] / "docs" / "feedback.md"


def vote(id_: str, vote: str, *answers: str, question: str = "Hi", **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "created": 1795254556,
        "messages": [{"role": "user", "content": question}],
        "answers": [{"model": f"model-{i}", "content": answer} for i, answer in enumerate(answers)],
        "vote": vote,
        **changes,
    }


def numbered(*records: dict[str, Any]) -> list[tuple[int, Vote]]:
    return [(number, Vote.model_validate(record)) for number, record in enumerate(records, 1)]


def pairs(*records: dict[str, Any]) -> tuple[list[tuple[int, str, str]], dict[str, int]]:
    found, unused = choices(numbered(*records))
    return [(choice.record, choice.chosen, choice.rejected) for choice in found], dict(unused)


def test_the_better_of_two_answers_makes_a_pair() -> None:
    assert pairs(vote("a", "first", "x", "y"), vote("b", "second", "x", "y")) == ([(1, "x", "y"), (2, "y", "x")], {})


def test_votes_without_a_preference_are_counted_by_reason() -> None:
    assert pairs(
        vote("a", "tie", "x", "y"),
        vote("b", "neither", "x", "y"),
        vote("c", "first", "x", "x"),
        vote("d", "up", "x"),
        vote("e", "down", "y", question="Who?"),
    ) == (
        [],
        {
            "a tie": 2,
            "both answers are the same": 1,
            "a thumb up without a thumb down on another answer": 1,
            "a thumb down without a thumb up on another answer": 1,
        },
    )


def test_thumbs_up_and_down_on_answers_to_the_same_messages_make_pairs() -> None:
    found, unused = pairs(vote("a", "up", "x"), vote("b", "down", "z", question="Who?"), vote("c", "down", "y"))
    assert found == [(3, "x", "y")]
    assert unused == {"a thumb down without a thumb up on another answer": 1}


def test_every_thumb_counts_and_no_more_pairs_come_of_them_than_of_the_larger_side() -> None:
    found, _ = pairs(
        *(vote(f"u{i}", "up", f"good {i}") for i in range(2)), *(vote(f"d{i}", "down", f"bad {i}") for i in range(5))
    )
    assert len(found) == 5
    assert {chosen for _, chosen, _ in found} == {"good 0", "good 1"}
    assert {rejected for *_, rejected in found} == {f"bad {i}" for i in range(5)}


def test_thumbs_that_disagree_on_one_answer_go_with_the_many() -> None:
    found, unused = pairs(vote("a", "up", "x"), vote("b", "up", "x"), vote("c", "down", "x"), vote("d", "down", "y"))
    assert found == [(4, "x", "y"), (4, "x", "y")]
    assert unused == {"thumbs up and down on the same answer": 1}
    assert pairs(vote("a", "up", "x"), vote("b", "down", "x"))[1] == {"thumbs up and down on the same answer": 2}


def test_a_later_line_with_the_same_id_replaces_the_vote() -> None:
    records = [vote("a", "first", "x", "y"), vote("b", "up", "x"), vote("a", "second", "x", "y")]
    assert pairs(records[0], records[2]) == ([(2, "y", "x")], {"changed by a later vote": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vote": "first"}, "a vote on one answer is one of up, down, not first"),
        ({"vote": "best"}, "record 1 is no vote: vote: "),
        ({"answers": []}, "answers: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages must end with a question"),
        ({"answers": [{"content": "x"}]}, r"answers.0.model: Field required \(docs/feedback.md"),
        ({"stars": 5}, "stars: "),
    ],
)
def test_a_record_that_is_no_vote_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_votes(Path("votes.jsonl"), [vote("a", "up", "x") | changes])


def test_the_examples_of_the_document_are_votes() -> None:
    lines = re.findall(r"^\{.*\}$", DOCUMENT.read_text(), re.MULTILINE)
    votes = [Vote.model_validate_json(line) for line in lines]
    assert {len(each.answers) for each in votes} == {1, 2}
    fields = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert fields == set(Vote.model_fields)
