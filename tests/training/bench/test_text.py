from pathlib import Path

import pytest

from training.bench.settings import TextBenchSettings
from training.bench.text import measure, read_texts, run

SENTENCES = [f"The {size} boat crossed river number {i} and came back.\n" for i in range(60) for size in ("old", "new")]


def test_what_learns_from_other_texts_beats_what_compresses_alone() -> None:
    bits = {name: bits for name, bits, _ in measure(["".join(SENTENCES)], ["".join(SENTENCES[50:70])], order=3)}
    assert bits["word 3-gram (Kneser-Ney)"] < bits["gzip -9"]
    assert bits["xz -9e, after the training text"] < bits["xz -9e"]


def test_without_a_training_text_only_compressors_are_measured() -> None:
    assert [name for name, *_ in measure([], ["some text"], order=3)] == ["gzip -9", "xz -9e"]


def test_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("".join(SENTENCES))
    run(TextBenchSettings(data=tmp_path, train=tmp_path / "a.txt"))
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert head == "| method | bits per byte | CPU-s |"
    assert len(rows) == 4


def test_no_byte_of_a_text_is_changed_on_reading(tmp_path: Path) -> None:
    text = "\ufeffline\r\n\n  end \n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_texts("--data", tmp_path) == [text]


@pytest.mark.parametrize(("name", "content"), [("absent.txt", None), ("latin.txt", b"caf\xe9"), ("", None)])
def test_a_text_that_cannot_be_read_names_the_flag(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^--train: "):
        read_texts("--train", tmp_path / name)
