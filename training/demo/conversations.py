"""What the demo assistant learns from: tasks, manners and stories, alone or several turns long.

It mixes the other generators and knows neither tokens nor models.
"""

import random
from collections.abc import Iterator, Mapping

from training.demo.stories import story_request
from training.demo.tasks import Message, small_talk, training_tasks

STORY_SHARE, SMALL_TALK_SHARE, LONG_SHARE = 0.12, 0.05, 0.08
"""Shares of conversations that tell a story, that are manners only, and that have two or three turns."""


def conversations(seed: int, weights: Mapping[str, float] | None = None) -> Iterator[list[Message]]:
    """Yield conversations without end; `weights` favours kinds of task."""
    rng = random.Random(seed)
    tasks = training_tasks(seed, weights)
    while True:
        choice = rng.random()
        if choice < STORY_SHARE:
            yield story_request(rng)
        elif choice < STORY_SHARE + SMALL_TALK_SHARE:
            yield small_talk(rng)
        elif choice < STORY_SHARE + SMALL_TALK_SHARE + LONG_SHARE:
            opening = small_talk(rng) if rng.random() < 0.5 else next(tasks).messages()
            yield [*opening, *next(tasks).messages(), *(small_talk(rng) if rng.random() < 0.3 else [])]
        else:
            yield next(tasks).messages()
