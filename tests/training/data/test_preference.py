import json
from pathlib import Path
from typing import Any

import pytest

from training.data.errors import DataError
from training.data.preference import Preference, is_preferences, read_preferences, tally

HI = {"role": "user", "content": "Hi"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(folder: Path, *records: Any) -> Path:
    path = folder / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_the_book_s_records_are_read_and_their_input_follows_its_heading(tmp_path: Path) -> None:
    record = {"instruction": "Spell it.", "input": "freind", "output": "friend", "chosen": "friend", "rejected": "No!"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]))
    ((found,), unused) = read_preferences(path, heading=" # ")
    assert found == Preference(1, [{"role": "user", "content": "Spell it. # freind"}], "friend", "No!")
    assert not unused


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "No."},
        {"prompt": [HI], "chosen": "Hello!", "rejected": "No."},
        {"prompt": [HI], "chosen": [said("Hello!")], "rejected": [said("No.")]},
        {"prompt": "Hi", "chosen": [HI, said("Hello!")], "rejected": [HI, said("No.")]},
        {"chosen": [HI, said("Hello!")], "rejected": [HI, said("No.")]},
    ],
)
def test_prompts_and_answers_may_be_texts_or_messages(tmp_path: Path, record: dict[str, Any]) -> None:
    ((found,), _) = read_preferences(write(tmp_path, record))
    assert found == Preference(1, [HI], "Hello!", "No.")


def test_earlier_turns_and_a_system_message_belong_to_the_prompt(tmp_path: Path) -> None:
    before = [{"role": "system", "content": "Be brief."}, HI, said("Yes?"), {"role": "user", "content": "Who?"}]
    record = {"chosen": [*before, said("I.")], "rejected": [*before, said("A very small model.")]}
    ((found,), _) = read_preferences(write(tmp_path, record))
    assert found == Preference(1, before, "I.", "A very small model.")


def test_votes_are_read_and_the_others_counted(tmp_path: Path) -> None:
    vote = {"id": "a", "created": 1, "messages": [HI], "answers": [{"model": "m", "content": "Hello!"}], "vote": "up"}
    other = {**vote, "id": "b", "answers": [{"model": "n", "content": "No."}], "vote": "down"}
    lonely = {**vote, "id": "c", "messages": [{"role": "user", "content": "Who?"}]}
    path = write(tmp_path, vote, lonely, other)
    found, unused = read_preferences(path)
    assert found == [Preference(3, [HI], "Hello!", "No.")]
    assert tally(unused) == "a thumb up without a thumb down on another answer (1)"
    assert is_preferences(path)


def test_records_that_teach_nothing_are_counted(tmp_path: Path) -> None:
    records = [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "chosen": "a", "rejected": "a"},
        {"prompt": "Hi", "chosen": " ", "rejected": "a"},
    ]
    found, unused = read_preferences(write(tmp_path, *records))
    assert [each.record for each in found] == [1]
    assert unused == {"chosen and rejected are the same": 1, "the chosen answer is empty": 1}
    with pytest.raises(DataError, match=r"none of its 2 records makes a pair: chosen and rejected are the same \(2\)"):
        read_preferences(write(tmp_path, records[1], records[1]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (1, "record 2 is not an object"),
        ({"prompt": "Hi", "chosen": "a"}, "record 2 has no 'rejected'"),
        ({"prompt": "Hi", "output": "a"}, "record 2 has no 'chosen'"),
        ({"chosen": "a", "rejected": "b"}, "has no 'prompt'"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "'prompt' must be a text, or a list"),
        ({"prompt": "Hi", "chosen": 1, "rejected": "b"}, "'chosen' must be a text, or a list"),
        ({"prompt": "Hi", "chosen": [{"role": "x"}], "rejected": "b"}, "objects with role and content"),
        ({"instruction": " ", "chosen": "a", "rejected": "b"}, "'instruction' must be a text"),
        ({"prompt": [said("x")], "chosen": "a", "rejected": "b"}, "it must end with a question"),
        ({"prompt": "Hi", "chosen": [HI], "rejected": "b"}, "the last message of 'chosen' must be the assistant's"),
        ({"prompt": "Ho", "chosen": [HI, said("a")], "rejected": "b"}, "not that of the prompt"),
        ({"chosen": [HI, said("a")], "rejected": [HI, said("x"), HI, said("b")]}, "only the last one may differ"),
    ],
)
def test_unusable_records_are_refused(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_preferences(write(tmp_path, {"prompt": "Hi", "chosen": "a", "rejected": "b"}, record))


def test_conversations_to_learn_are_no_preferences(tmp_path: Path) -> None:
    assert not is_preferences(write(tmp_path, {"messages": [HI, said("Hello!")]}))
    assert is_preferences(write(tmp_path, {"prompt": "Hi", "chosen": "a", "rejected": "b"}))
