"""What the demo assistant learns from: tasks, manners and stories, alone or several turns long.

It mixes the other generators and knows neither tokens nor models.
"""

import random
from collections.abc import Iterator, Mapping

from training.demo.stories import story_request
from training.demo.tasks import Draw, Message, questions_about_owners, small_talk, training_tasks

STORY_SHARE, SMALL_TALK_SHARE, LONG_SHARE, OWNERS_SHARE = 0.06, 0.04, 0.06, 0.1
"""Shares of conversations that tell a story, that are manners only, that have two or three turns, and that ask for one
owner after another."""


def conversations(seed: int, weights: Mapping[str, float] | None = None) -> Iterator[list[Message]]:
    """Yield conversations without end; `weights` favours kinds of task."""
    rng = random.Random(seed)
    tasks, draw = training_tasks(seed, weights), Draw(rng, held_out=False)
    while True:
        choice = rng.random()
        if choice < STORY_SHARE:
            yield story_request(rng)
        elif choice < STORY_SHARE + SMALL_TALK_SHARE:
            yield small_talk(rng)
        elif choice < STORY_SHARE + SMALL_TALK_SHARE + LONG_SHARE:
            opening = small_talk(rng) if rng.random() < 0.5 else next(tasks).messages()
            yield [*opening, *next(tasks).messages(), *(small_talk(rng) if rng.random() < 0.3 else [])]
        elif choice < STORY_SHARE + SMALL_TALK_SHARE + LONG_SHARE + OWNERS_SHARE:
            yield questions_about_owners(draw)
        else:
            yield next(tasks).messages()
