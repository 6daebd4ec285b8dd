"""Many ways to ask for one thing: every phrase in every frame, the thing inside the request or named before it.

It does not know what is asked for: phrases come from `cores`, and the rules here are the same for all of them.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from training.demo import words

ASKING = (
    "{}?", "{}.", "{}, please.", "Please, {}.", "What is {}?", "Tell me {}.", "Give me {}.", "I need {}.", "I want {}.",
    "Do you know {}?", "Show me {}.", "Can you find {}?", "I am looking for {}.", "May I have {}?", "Write down {}.",
    "Could you tell me {}?", "Let me see {}.", "I would like {}.", "I would like to know {}.", "Say {}.", "Now {}.",
    "Will you give me {}?", "What would {} be?", "I forgot {}.", "My question is about {}.", "Answer with {}.",
    "Can I get {}?", "Your task: {}.", "Tell me what {} is.", "I do not know what {} is.", "What do you think {} is?",
    "Would you write {} for me?",
)  # fmt: skip
"""Ways to ask for what a noun phrase names."""

TELLING = (
    "{}.", "{} now.", "{}, please.", "Please {}.", "Please, {}!", "Can you {}?", "Could you {}?", "I want you to {}.",
    "Try to {}.", "Help me to {}.", "Would you {} for me?", "You should {}.", "Now {}.", "How do you {}?",
    "Show me how to {}.",
    "Your task is to {}.", "I need you to {}.", "I would like you to {}.", "Let us {}.", "Will you {}?",
    "What comes out when you {}?",
    "What do I get if I {}?", "It is time to {}.", "Are you able to {}?",
)  # fmt: skip
"""Ways to ask for what a verb phrase tells to do."""

NAMING = (
    "{}.", "Here is {}.", "Take {}.", "I have {}.", "Think of {}.", "This is {}.", "We start with {}.",
    "I give you {}.",
    "Let us take {}.", "There is {}.", "Read {}.", "I found {}.", "It is about {}.", "Next comes {}.",
)  # fmt: skip
"""Ways to name the thing first; a request that refers back to it follows."""

LEADING = (
    "For {}: ",
    "From {}, ",
    "With {}: ",
    "{}: ",
    "{}, and ",
    "Given {}, ",
    "If I say {}, ",
    "Start with {} and ",
)
"""Ways to name it first in the same sentence."""

SHOWING = (
    "{}", "Here is a sentence. {}", "Read this. {}", "I wrote this: {}", "{} That is my sentence.", "Look: {}",
    "This is it: {}",
    "Think about this. {}", "Somebody said: {}", "There is a sentence: {}",
)  # fmt: skip
"""Ways to give a whole text first."""

LOOSE_WORDS = frozenset(
    words.split_list(
        """the a an of me to you this that is are do please i want need now can could would will give tell say show
        write find know like have let see try be for it what take here us"""
    )
)
"""Words of a request that it can do without, or that others may stand for."""


@dataclass(frozen=True, slots=True)
class Cores:
    """What a kind of task may be called, as short phrases; `{x}` is the thing that it is done with."""

    asked: tuple[str, ...]
    """Noun phrases: what is wanted."""
    told: tuple[str, ...]
    """Verb phrases: what to do."""
    things: tuple[str, ...] = ('"{word}"', 'the word "{word}"')
    """The thing in a request, or named before it."""
    pronouns: tuple[str, ...] = ("it", "this word")
    """The thing where it has been named."""
    text: str = ""
    """A whole text that the request is about, before it or after it, in place of a thing."""


def direct_phrasings(cores: Cores) -> tuple[str, ...]:
    """Return requests that hold what they are about."""
    if cores.text:
        requests = [_sentence(request) for pronoun in cores.pronouns for request in _requests(cores, pronoun)]
        return tuple(f"{request[:-1]}: {cores.text}" for request in requests if request.endswith("."))
    return tuple(_sentence(request) for thing in cores.things for request in _requests(cores, thing))


def referring_phrasings(cores: Cores) -> tuple[str, ...]:
    """Return requests that come after what they are about."""
    found = []
    for pronoun in cores.pronouns:
        requests = _requests(cores, pronoun)
        if cores.text:
            firsts = [frame.replace("{}", cores.text) for frame in SHOWING]
        else:
            firsts = [_sentence(frame.replace("{}", thing)) for thing in cores.things for frame in NAMING]
            leads = [_sentence(frame.replace("{}", thing)) for thing in cores.things for frame in LEADING]
            found += [lead + request for lead in leads for request in requests]
        found += [f"{first} {_sentence(request)}" for first in firsts for request in requests]
    return tuple(found)


def _requests(cores: Cores, thing: str) -> list[str]:
    asked = [_with(phrase, thing) for phrase in cores.asked]
    told = [_with(phrase, thing) for phrase in cores.told]
    return [
        *(frame.replace("{}", phrase) for phrase in asked for frame in ASKING),
        *(frame.replace("{}", phrase) for phrase in told for frame in TELLING),
    ]


_OF = re.compile(r"^the (.*) of \{x\}")


def _with(phrase: str, thing: str) -> str:
    """Put the thing into a phrase: the plural of it is its plural."""
    if thing in ("it", "them"):
        phrase = _OF.sub(r"its \1" if thing == "it" else r"their \1", phrase)
    return phrase.replace("{x}", thing)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def loosened(phrasing: str, rng: random.Random, made_up: str) -> str:
    """Drop one small word, or put a made-up one in its place, so that no single word is waited for."""
    parts = phrasing.split(" ")
    places = [i for i, part in enumerate(parts) if part.lower() in LOOSE_WORDS]
    if places:
        at = rng.choice(places)
        parts[at : at + 1] = [] if rng.random() < 0.5 else [made_up.capitalize() if parts[at][0].isupper() else made_up]
    return " ".join(parts)


def is_close(left: str, right: str) -> bool:
    """Whether fewer than two words must be added, dropped or replaced to make one phrasing of the other."""
    a, b = left.split(), right.split()
    if a == b or abs(len(a) - len(b)) > 1:
        return a == b
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return any(a[start + i :] == b[start + j :] for i, j in ((1, 1), (1, 0), (0, 1)))


def words_of(phrasings: Iterable[str]) -> set[str]:
    """Return the words that phrasings and frames are made of, in lower case."""
    return {word for text in phrasings for word in re.findall("[a-z]+", re.sub(r"\{\w*\}", "", text).lower())}
