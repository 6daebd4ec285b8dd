"""A setting that gives labels better names, as `OLD=NEW` pairs."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator


def _need_pairs(value: tuple[str, ...]) -> tuple[str, ...]:
    for pair in value:
        old, sign, new = pair.partition("=")
        if not (sign and old.strip() and new.strip()):
            raise ValueError(f"{pair!r} is no OLD=NEW")
    return value


LabelNames = Annotated[tuple[str, ...], AfterValidator(_need_pairs)]
"""Pairs such as `0=negative`."""


def renaming(pairs: Sequence[str]) -> dict[str, str]:
    """Return new names of labels by old ones."""
    parts = (pair.partition("=") for pair in pairs)
    return {old.strip(): new.strip() for old, _, new in parts}
