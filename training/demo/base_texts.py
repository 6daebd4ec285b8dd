"""What the demo's base model reads as plain text: stories, drills and nouns in use.

It mixes the other generators and knows neither tokens nor models.
"""

import random
from collections.abc import Callable, Iterator

from training.demo import drills, stories

COPYING_SHARE, OWNING_SHARE, USAGE_SHARE = 0.08, 0.2, 0.35
"""Shares of documents; the others are stories."""


def base_documents(seed: int, *, usage_share: float = USAGE_SHARE) -> Iterator[str]:
    """Yield the base model's texts without end."""
    rng = random.Random(seed)
    makers: tuple[Callable[[random.Random], str], ...] = (
        drills.copying,
        drills.owning,
        drills.usage,
        lambda rng: stories.tell(rng).text,
    )
    shares = [COPYING_SHARE, OWNING_SHARE, usage_share]
    while True:
        yield rng.choices(makers, [*shares, 1 - sum(shares)])[0](rng)
