"""A checkpoint of GPT-2's size: random weights, and a vocabulary that needs no download.

Speed does not depend on what the weights say. It does depend on their number, and on every token having text.
"""

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path

import torch

from model.checkpoint import save_checkpoint
from model.config import PRESETS
from model.directory import Checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from model.vocabularies.tokenizer_json import byte_alphabet

END = "<|endoftext|>"


def save_random_gpt2(path: Path, preset: str) -> Checkpoint:
    """Write the checkpoint; the same weights each time."""
    config = PRESETS[preset]
    torch.manual_seed(0)
    tokenizer = make_tokenizer(config.vocab_size)
    return save_checkpoint(path, GPT(config), tokenizer, model_card="# Random weights, to measure speed only\n")


def make_merges() -> Iterator[tuple[str, str]]:
    """Yield merges that can never compete: the n-th character of a word comes from the n-th part of the alphabet."""
    first, *others = (string.printable[start : start + 23] for start in range(0, 92, 23))
    words = list(first)
    for letters in others:
        pairs = list(itertools.product(words, letters))
        yield from pairs
        words = [left + right for left, right in pairs]


def make_tokenizer(vocab_size: int) -> Tokenizer:
    """All bytes, then words of two to four characters, then the end token."""
    tokens = list(byte_alphabet().values())
    merges = list(itertools.islice(make_merges(), vocab_size - len(tokens) - 1))
    tokens += [left + right for left, right in merges]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": len(tokens), "content": END, "special": True}
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    vocab = {token: i for i, token in enumerate([*tokens, END])}
    spec = {
        "version": "1.0",
        "added_tokens": [end | flags],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [list(merge) for merge in merges]},
    }
    return Tokenizer.from_json(json.dumps(spec), eos_token=END)
