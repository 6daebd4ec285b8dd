"""What a freshly trained vocabulary must hold."""

import json

import pytest

from model.chat import SPECIAL_TOKENS
from training.vocabulary import train_bpe

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
