import json
from pathlib import Path

import pytest

from training.data.errors import DataError
from training.evaluation.last_word import read_passages


@pytest.mark.parametrize("record", [{"text": "word"}, {"text": "ends in "}, {"words": "a b"}, "a b"])
def test_a_record_without_a_last_word_is_refused_by_number(tmp_path: Path, record: object) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "two words"}) + "\n" + json.dumps(record))
    with pytest.raises(DataError, match=r"--last-word: .*record 2 has no text of two words or more"):
        read_passages(path)


def test_the_published_passages_are_all_read(data_dir: Path) -> None:
    assert len(read_passages(data_dir / "eval-lambada" / "lambada_test.jsonl")) == 5153
