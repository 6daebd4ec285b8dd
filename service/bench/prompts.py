"""Prompts of random ids, the same for every contender."""

import random

from model.config import PRESETS


def make_prompts(preset: str, count: int, length: int, seed: int = 0) -> list[list[int]]:
    """Draw prompts without any common beginning, others for each seed; without the end token, the vocabulary's last."""
    rng = random.Random(f"{count} {length} {seed}")
    vocab_size = PRESETS[preset].vocab_size
    return [[rng.randrange(vocab_size - 1) for _ in range(length)] for _ in range(count)]
