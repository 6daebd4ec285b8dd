import json
from pathlib import Path

import pytest

from training.data.errors import DataError
from training.evaluation.saved_answers import SavedAnswer, read_saved_answers

QUESTION = [{"role": "user", "content": "Hi?"}]


def read(path: Path, record: object) -> SavedAnswer:
    path.write_text(json.dumps([record]))
    (found,) = read_saved_answers(path)
    return found


def test_answers_of_finetuning_and_of_the_book_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    ours = {"record": 3, "messages": QUESTION, "answer": "Hello.", "response": "Hey", "is_finished": True}
    assert read(path, ours) == SavedAnswer(QUESTION, "Hey", "Hello.")
    assert not read(path, {**ours, "is_finished": False}).is_finished
    book = {"instruction": "Spell it.", "input": "cat", "output": "c-a-t", "model_response": ""}
    assert read(path, book).messages[0]["content"].startswith("Spell it.")
    assert "cat" in read(path, book).messages[0]["content"]
    assert read(path, book).wanted == "c-a-t"
    assert read(path, {"instruction": "Hi?", "response": "Hey"}) == SavedAnswer(QUESTION, "Hey", None)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"messages": QUESTION}, "has no 'response'"),
        ({"messages": [], "response": "x"}, "end with a question"),
        ({"messages": [{"role": "assistant", "content": "x"}], "response": "x"}, "end with a question"),
        ({"messages": ["x"], "response": "x"}, "end with a question"),
        ({"response": "x"}, "neither messages nor an instruction"),
        ("x", "is not an object"),
    ],
)
def test_a_record_that_is_no_answer_is_refused_by_number(tmp_path: Path, record: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"RESPONSES: .*record 1.*{complaint}"):
        read(tmp_path / "a.json", record)


def test_the_answers_of_the_book_are_all_read(data_dir: Path) -> None:
    file = data_dir / "instruction-llms-from-scratch" / "instruction-data-with-response.json"
    assert len(read_saved_answers(file)) == 110
