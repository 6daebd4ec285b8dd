"""What a freshly trained vocabulary must hold."""

import hashlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from model.chat import SPECIAL_TOKENS
from model.vocabularies.byte_level import read_byte_level
from model.vocabularies.tokenizer_json import read_tokenizer_json
from tests.fuzz import assert_same_ids, fuzzed_strings
from training import vocabulary
from training.vocabulary import Split, train_bpe

TEXTS = ["low lower lowest, new newer newest\n"] * 8


def test_special_tokens_come_first_then_every_byte() -> None:
    tokenizer = train_bpe(TEXTS, 300)
    assert [tokenizer.special_tokens[token] for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.eos_id == 0
    assert tokenizer.pad_id == 1
    assert {tokenizer.token_bytes(id_) for id_ in range(6, 262)} == {bytes([byte]) for byte in range(256)}


def test_frequent_words_become_tokens() -> None:
    tokenizer = train_bpe(["the river and the sea and the sky "] * 8, 300)
    assert len(tokenizer.encode(" the sea and the river")) == 5


def test_training_twice_gives_the_same_file() -> None:
    assert train_bpe(TEXTS, 280).files() == train_bpe(iter(TEXTS), 280).files()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_file_does_not_depend_on_the_number_of_threads(num_threads: int) -> None:
    program = (
        "import hashlib; from tests.fuzz import fuzzed_strings; from training.vocabulary import train_bpe;"
        "tokenizer = train_bpe(fuzzed_strings(3_000), 700);"
        "print(hashlib.sha256(tokenizer.files()['tokenizer.json']).hexdigest())"
    )
    environment = os.environ | {"RAYON_NUM_THREADS": str(num_threads), "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    here = hashlib.sha256(train_bpe(fuzzed_strings(3_000), 700).files()["tokenizer.json"]).hexdigest()
    assert run.stdout.strip() == here


@pytest.mark.parametrize("split", get_args(Split))
def test_a_long_text_is_counted_as_if_it_were_whole(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(fuzzed_strings(2_000)).replace("<|endoftext|>", "")
    whole = train_bpe([text], 600, split=split).files()
    monkeypatch.setattr(vocabulary, "PIECE_CHARS", 97)
    assert train_bpe([text], 600, split=split).files() == whole


def test_texts_are_read_as_they_are_needed_and_dropped() -> None:
    alive: list[weakref.ref[Text]] = []

    def texts() -> Iterator[str]:
        for number in range(3_000):
            text = Text(f"the river {number % 7} " * 3)
            alive.append(weakref.ref(text))
            yield text
            del text
            assert sum(reference() is not None for reference in alive) < 1_500

    train_bpe(texts(), 300)
    assert len(alive) == 3_000


class Text(str):
    """A string that can be watched."""


@pytest.mark.parametrize("split", get_args(Split))
def test_each_split_is_run_by_tiktoken_with_the_librarys_ids(split: Split) -> None:
    source = train_bpe(fuzzed_strings(2_000), 700, split=split).files()["tokenizer.json"].decode()
    assert read_byte_level(read_tokenizer_json(source))
    assert_same_ids(source, count=2_000)


def test_splits_treat_numbers_differently() -> None:
    texts = ["in 1869 and 1869 and 1869 "] * 20
    pieces = {split: train_bpe(texts, 400, split=split).encode(" 1869") for split in get_args(Split)}
    assert {split: len(ids) for split, ids in pieces.items()} == {"gpt2": 1, "llama3": 3, "single-digits": 5}


@pytest.mark.parametrize("tokens", [("<|endoftext|>",), ("<|endoftext|>", "<|pad|>", "<|pad|>")])
def test_special_tokens_that_are_missing_or_twice_are_refused(tokens: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="special_tokens: each once"):
        train_bpe(TEXTS, 300, special_tokens=tokens)


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    assert train_bpe(TEXTS, 262).vocab_size == 262
    with pytest.raises(ValueError, match="at least 262"):
        train_bpe(TEXTS, 261)


def test_the_split_pattern_is_gpt2s_own() -> None:
    root = json.loads(train_bpe(TEXTS, 262).files()["tokenizer.json"])
    assert root["pre_tokenizer"] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
