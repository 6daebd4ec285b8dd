import json
from pathlib import Path
from typing import Any

import pytest

from training.config.instruct import InstructConfig
from training.data.errors import DataError
from training.data.splits import Part, Parts, divide, read_parts


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"instruction": f"Question {i}", "output": f"{i}"} for i in range(1, 21)]))
    return path


def parts_of(data: Path, **changes: Any) -> Parts:
    settings = {"data": data, "base": "base", "out": "out", **changes}
    return read_parts(InstructConfig.model_validate(settings), "\n\n")


def numbers(part: Part | None) -> list[int]:
    return list(part.conversations) if part is not None else []


def test_a_random_split_shares_nothing_and_loses_nothing(data: Path) -> None:
    parts = parts_of(data, valid_fraction=0.2, test_fraction=0.1)
    assert [len(part) for part in parts if part is not None] == [16 - 2, 4, 2]
    assert sorted(numbers(parts.train) + numbers(parts.valid) + numbers(parts.test)) == list(range(1, 21))
    assert parts.train.conversations[numbers(parts.train)[0]][1]["content"] == str(numbers(parts.train)[0])
    assert parts_of(data, valid_fraction=0.2, test_fraction=0.1) == parts
    assert parts_of(data, valid_fraction=0.2, test_fraction=0.1, seed=7) != parts


def test_the_file_s_order_is_cut_as_in_the_book() -> None:
    train, valid, test = divide(list(range(1100)), 0.05, 0.1, is_in_order=True)
    assert (len(train), len(test), len(valid)) == (935, 110, 55)
    assert train + test + valid == list(range(1100))


@pytest.mark.parametrize("is_in_order", [True, False])
@pytest.mark.parametrize("shares", [(0.0, 0.25), (0.25, 0.0), (0.25, 0.25), (0.0, 0.0)])
def test_no_conversation_is_lost_to_rounding(*, is_in_order: bool, shares: tuple[float, float]) -> None:
    parts = divide(list(range(10)), *shares, is_in_order=is_in_order)
    assert sorted(number for part in parts for number in part) == list(range(10))


def test_files_of_their_own_take_the_place_of_shares(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"instruction": "Else?", "output": "Yes"}\n')
    parts = parts_of(data, valid_data=other, test_fraction=0.1, split="order")
    assert (numbers(parts.train), numbers(parts.test)) == (list(range(1, 19)), [19, 20])
    assert parts.valid.conversations[1][1]["content"] == "Yes"
    assert (parts.valid.flag, parts.valid.path) == ("--valid-data", other)
    both = parts_of(data, valid_data=other, test_data=other)
    assert (len(both.train), numbers(both.test)) == (20, [1])


@pytest.mark.parametrize("split", ["random", "order"])
def test_too_few_conversations_are_refused(tmp_path: Path, split: str) -> None:
    path = tmp_path / "one.json"
    path.write_text('[{"instruction": "x", "output": "y"}]')
    with pytest.raises(DataError, match="--data: 1 conversations are too few to train and validate on"):
        parts_of(path, split=split)


def test_an_unusable_file_is_named_with_its_flag(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--test-data: .*missing\.json: No such file"):
        parts_of(data, test_data=tmp_path / "missing.json")


def test_held_out_prompts_that_are_trained_on_are_told(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.jsonl"
    questions = ("Question 3 ", "New", "Question 4")
    other.write_text("".join(json.dumps({"instruction": text, "output": "x"}) + "\n" for text in questions))
    parts_of(data, valid_data=other)
    assert "other.jsonl: 2 held-out prompts are also in the training part, records 1, 3" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "nothing is left to train on"),
        ({"test_data": "x.json", "test_fraction": 0.1}, "--test-data is the test part"),
        ({"valid_data": "x.json", "valid_fraction": 0.2}, "--valid-data is the validation part"),
        ({"add_tokens": True, "trainable": "head"}, "--add-tokens: new tokens are learned only where all weights"),
        ({"add_tokens": True, "lora": {"rank": 4}}, "--add-tokens"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parts_of(data, **changes)
