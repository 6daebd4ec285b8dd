"""Which conversations train, validate and test: by share, in the file's order, or from files of their own."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.config.instruct import InstructConfig
from training.data.errors import DataError
from training.data.instruction import Conversation, counted, read_numbered

logger = logging.getLogger(__name__)

PromptKey = tuple[tuple[str, str], ...]

ROUNDING = 1e-9
"""Shares such as 0.85 of 1100 are a whole number but for what floating point makes of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Conversations by the number of their record in a file."""

    conversations: Mapping[int, Conversation]
    path: Path
    flag: str = "--data"

    def __len__(self) -> int:
        return len(self.conversations)


class Parts(NamedTuple):
    """A data set, divided."""

    train: Part
    valid: Part
    test: Part | None


def read_parts(config: InstructConfig, heading: str) -> Parts:
    """Read the files of a run and divide what they hold.

    Raises:
        DataError: a file cannot be used, or holds too little to be divided.
    """
    known = read_numbered(config.data, heading=heading)
    own = {
        name: Part(read_numbered(path, heading=heading, flag=f"--{name}-data"), path, f"--{name}-data")
        for name, path in (("valid", config.valid_data), ("test", config.test_data))
        if path is not None
    }
    order = list(known)
    if config.split == "random":
        order = np.random.default_rng(config.seed).permutation(order).tolist()
    numbers = divide(order, config.valid_share, config.test_fraction, is_in_order=config.split == "order")
    train, valid, test = (Part({n: known[n] for n in sorted(part)}, config.data) for part in numbers)
    parts = Parts(train, own.get("valid", valid), own.get("test", test if config.test_fraction else None))
    warn_of_repeats(parts)
    return parts


def divide(order: list[int], valid_share: float, test_share: float, *, is_in_order: bool) -> list[list[int]]:
    """Cut a row of numbers into those to train, to validate and to test on.

    In the file's order the parts lie as in the book: training, then test, each rounded down, and the rest validates.

    Raises:
        DataError: a part that is asked for would be empty.
    """
    total = len(order)
    if is_in_order:
        num_test = int(total * test_share + ROUNDING)
        num_train = int(total * (1 - valid_share - test_share) + ROUNDING) if valid_share else total - num_test
        train, test, valid = order[:num_train], order[num_train : num_train + num_test], order[num_train + num_test :]
    else:
        num_valid, num_test = (max(1, round(share * total)) if share else 0 for share in (valid_share, test_share))
        valid, test, train = order[:num_valid], order[num_valid : num_valid + num_test], order[num_valid + num_test :]
    wanted = {"train": 1.0, "valid": valid_share, "test": test_share}
    for (name, share), part in zip(wanted.items(), (train, valid, test), strict=True):
        if share and not part:
            raise DataError(
                f"--data: {total} conversations are too few to train and validate on; none is left to {name}"
            )
    return [train, valid, test]


def warn_of_repeats(parts: Parts) -> None:
    """Say which held-out prompts are also trained on: what is measured on them is memory."""
    trained = set(prompts(parts.train.conversations.values()))
    for part in (parts.valid, parts.test):
        if part is not None:
            asked = zip(part.conversations, prompts(part.conversations.values()), strict=True)
            repeated = [number for number, prompt in asked if prompt in trained]
            if repeated:
                logger.warning(
                    "%s: %d held-out prompts are also in the training part, records %s", part.path, *counted(repeated)
                )


def prompts(conversations: Iterable[Conversation]) -> Iterable[PromptKey]:
    """Yield what stands before each last answer, as something that can be compared."""
    for messages in conversations:
        yield prompt_key(messages[:-1])


def prompt_key(messages: Conversation) -> PromptKey:
    """Return a prompt as something that can be compared."""
    return tuple((message["role"], message["content"].strip()) for message in messages)
