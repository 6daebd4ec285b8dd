"""The stories: grammatical on the surface, varied, and the same for the same seed."""

import random
import re
from collections import Counter

from training.demo import plots
from training.demo.stories import story_request, tell


def stories(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [tell(rng).text for _ in range(count)]


def test_stories_follow_the_seed() -> None:
    assert stories(20) == stories(20) != stories(20, seed=1)


def test_no_markup_is_left() -> None:
    for story in stories(2000):
        assert not re.search(r"[{}<>\[\]|]|  |[.,!?][.,]", story), story


def test_sentences_start_with_a_capital_and_quotes_are_closed() -> None:
    for story in stories(2000):
        assert story.count('"') % 2 == 0, story
        assert not re.search(r"(^|[.!] )[a-z]", story), story
        assert story.endswith((".", "!", '"', "?")), story


def test_every_plot_is_told_in_whole_tellings() -> None:
    for plot in plots.PLOTS:
        assert len({len(beat) for beat in (plot.wish, plot.trouble, plot.turn, plot.end)}) == 1


def test_stories_hardly_repeat() -> None:
    told = stories(3000)
    assert len(set(told)) > 2990
    openings = Counter(" ".join(story.split()[:4]) for story in told)
    assert openings.most_common(1)[0][1] < 0.4 * len(told)


def test_a_story_is_about_the_hero_asked_for() -> None:
    rng = random.Random(3)
    for _ in range(50):
        story = tell(rng, "fox")
        assert story.hero.kind == "fox"
        assert story.hero.name in story.text


def test_pronouns_fit_the_only_person_in_a_story() -> None:
    for story in (tell(random.Random(seed)) for seed in range(300)):
        people = {name for name in plots.GIRLS + plots.BOYS if re.search(rf"\b{name}\b", story.text)}
        if people == {story.hero.name} and story.hero.gender == "female":
            assert not re.search(r"\bhim(self)?\b", story.text), story.text


def test_a_request_is_answered_with_a_story() -> None:
    question, reply = story_request(random.Random(4))
    assert "story" in question["content"]
    assert len(reply["content"]) > 150
