"""Strings that tokenizers trip over, and the comparison of a vocabulary with the `tokenizers` library on them."""

import random
import string
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer as Oracle

from model.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "<|pad|>", "<|end|>")


def fuzzed_strings(count: int, seed: int = 0) -> list[str]:
    """Mix everything that tokenizers trip over; the same strings for the same seed."""
    rng = random.Random(seed)
    sources: list[Callable[[], str]] = [
        lambda: rng.choice(string.printable),
        lambda: rng.choice(string.ascii_letters),
        lambda: rng.choice(["the ", " The", "hello", "don't", "WE'LL ", "'S", "I've", "\u017f", "'\u017f"]),
        lambda: rng.choice(" \t\n\r\x0b\x0c\x85\xa0\u2003\u2028\u3000") * rng.randint(1, 9),
        lambda: str(rng.randint(0, 10**9)) + rng.choice(["", "\u0663", "\u00bd", "\u2167", "\uff15"]),
        lambda: chr(rng.randint(0x4E00, 0x9FFF)),
        lambda: rng.choice(["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"]),
        lambda: rng.choice("ae\u00e9nu") + chr(rng.randint(0x300, 0x36F)) * rng.randint(0, 3),
        lambda: chr(rng.choice([*range(0x20), *range(0x7F, 0xA0), 0xFEFF, 0x200B, 0xFFFD])),
        lambda: rng.choice([*SPECIAL, "<|end", "|>", "<|", "<|endoftext|><|pad|>", "<|endof"]),
        lambda: rng.choice(["\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u0939\u093f\u0928\u094d"]),
        lambda: chr(rng.choice([rng.randint(0x80, 0xD7FF), rng.randint(0xE000, 0x10FFFF)])),
    ]
    return ["".join(rng.choice(sources)() for _ in range(rng.randint(0, 24))) for _ in range(count)]


def assert_same_ids(source: str, count: int = 10_000) -> None:
    oracle, ours = Oracle.from_str(source), Tokenizer.from_json(source, eos_token="<|endoftext|>")
    texts = fuzzed_strings(count)
    oracle.encode_special_tokens = False
    expected = oracle.encode_batch(texts, add_special_tokens=False)
    different = [t for t, e in zip(texts, expected, strict=True) if ours.encode(t, parse_special=True) != e.ids]
    assert not different, different[:3]
    oracle.encode_special_tokens = True  # the library's name for: text of special tokens is plain text
    expected = oracle.encode_batch(texts, add_special_tokens=False)
    different = [t for t, e in zip(texts, expected, strict=True) if ours.encode(t) != e.ids]
    assert not different, different[:3]


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).write_bytes(data)
