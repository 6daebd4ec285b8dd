from pathlib import Path

import numpy as np
import pytest

from model.tokenizer import Tokenizer
from training.data.prepare import (
    encode_documents,
    id_dtype,
    is_corpus,
    open_corpus,
    read_documents,
    split_documents,
    write_corpus,
    write_shards,
)
from training.data.tokens import DataError, open_shards
from training.vocabulary import train_bpe

STORIES = ["The quick brown fox.\n", "A small boat in 1869.\n", "\u65e5\u672c\u8a9e \U0001f642\n"]


def test_shards_hold_each_document_and_its_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    manifest = write_shards(tmp_path, STORIES, tokenizer)
    (shard,) = open_shards(tmp_path)
    assert isinstance(shard, np.memmap)
    assert shard.dtype == np.uint16
    end = tokenizer.token_bytes(tokenizer.eos_id).decode()
    assert tokenizer.decode(shard.tolist()) == "".join(story + end for story in STORIES)
    assert (manifest.num_documents, manifest.num_tokens) == (3, len(shard))
    assert manifest.num_bytes == len("".join(STORIES).encode())


def test_large_vocabularies_get_wider_ids() -> None:
    assert (id_dtype(2**16), id_dtype(2**16 + 1)) == (np.uint16, np.uint32)


def test_a_truncated_shard_is_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_shards(tmp_path, STORIES, tokenizer)
    (tmp_path / "00000.bin").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"00000\.bin: 2 bytes instead of"):
        open_shards(tmp_path)


def test_a_corpus_comes_back_as_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_corpus(tmp_path / "c", STORIES[:2], STORIES[2:], tokenizer)
    assert is_corpus(tmp_path / "c")
    corpus = open_corpus(tmp_path / "c", Tokenizer.from_directory(tmp_path / "c"))
    assert np.array_equal(np.concatenate(corpus.train), encode_documents(STORIES[:2], tokenizer))
    assert np.array_equal(corpus.valid, encode_documents(STORIES[2:], tokenizer))
    assert corpus.valid_bytes == len(STORIES[2].encode())


def test_shards_of_another_tokenizer_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_corpus(tmp_path, STORIES, STORIES, tokenizer)
    with pytest.raises(DataError, match="another tokenizer"):
        open_corpus(tmp_path, train_bpe(STORIES, 270))


def test_published_end_marks_separate_documents(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n")
    assert read_documents(path) == ["One.", "Two."]


def test_a_folder_is_read_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("first")
    (tmp_path / "notes.md").write_text("no text")
    assert read_documents(tmp_path) == ["first", "second"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b" \n", "is empty"), (b"ab\xff", "not UTF-8 at byte 2")]
)
def test_unusable_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_documents(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: No such file"):
        read_documents(tmp_path / "gone.txt")


def test_the_end_of_a_single_text_is_held_out_at_a_line() -> None:
    lines = [f"line {i}\n" for i in range(10)]
    train, valid = split_documents(["".join(lines)], 0.2)
    assert (train, valid) == (["".join(lines[:8])], ["".join(lines[8:])])


def test_the_last_documents_are_held_out() -> None:
    assert split_documents(["aaaa", "bbbb", "cc"], 0.2) == (["aaaa", "bbbb"], ["cc"])


def test_a_single_line_cannot_be_split() -> None:
    with pytest.raises(DataError, match="single line"):
        split_documents(["only this"], 0.5)
