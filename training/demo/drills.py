"""Plain texts that teach the base model one thing each: to copy words, who has what, and what can be said of a noun.

Nothing in them names the category or a form of a held-out word; nouns themselves are all used, as they are in any text.
"""

import random
from collections.abc import Iterable

from training.demo import plots, words

_DRILL_WORDS = (*plots.GIRLS, *plots.BOYS, *plots.TOYS, *plots.COLORS, *plots.BEASTS)


def owning(rng: random.Random) -> str:
    """Say who has what, and then whose each thing is, in another order; often with names of a few letters, in rounds.

    Such names are told apart at a glance: what is learned on them, to look from a thing to its owner, is then
    learned on longer ones sooner.
    """
    if rng.random() >= TINY_SHARE:
        return _owners(rng, *(_real_or_made_up(rng, pool) for pool in (words.NAMES, words.THINGS)))
    return " ".join(_owners(rng, _tiny(rng), _tiny(rng)) for _ in range(rng.randint(2, 5)))


def _owners(rng: random.Random, names: Iterable[str], things: Iterable[str]) -> str:
    pairs = [(name[0].upper() + name[1:], thing) for name, thing in zip(names, things, strict=False)]
    pairs = pairs[: rng.randint(2, 5)]
    said = [f"{name} has {words.with_article(thing)}." for name, thing in pairs]
    rng.shuffle(pairs)
    whose = rng.choice(_WHOSE)
    return " ".join([*said, *(whose.format(thing=thing, name=name) for name, thing in pairs)])


def _real_or_made_up(rng: random.Random, pool: tuple[str, ...]) -> list[str]:
    known = rng.sample(words.split_words(pool, held_out=False), 5)
    return [words.pseudo_word(rng) if rng.random() < 0.5 else word for word in known]


def _tiny(rng: random.Random) -> list[str]:
    return list(dict.fromkeys(words.tiny_word(rng) for _ in range(8)))


TINY_SHARE = 0.6
"""Share of drills about owners whose names and things have one to three letters."""

_WHOSE = ("The {thing} is with {name}.", "The {thing}: {name}.", "The {thing} belongs to {name}.")
"""Ways to say once more whose a thing is; in the second the answer follows the question at once."""


def copying(rng: random.Random) -> str:
    """Repeat a row of words in order: letter by letter in quotes, or in running text as stories have them."""
    if rng.random() < 0.4:
        row = " ".join(f'"{words.pseudo_word(rng)}"' for _ in range(rng.randint(2, 6)))
        return f"{row} Again: {row}"
    items = [*rng.sample(_DRILL_WORDS, rng.randint(1, 6)), *(words.pseudo_word(rng) for _ in range(rng.randint(1, 4)))]
    rng.shuffle(items)
    row = ", ".join(items)
    return f"Say {row}. Again, {row}. And again, {row}."


def usage(rng: random.Random) -> str:
    """Use some nouns, held-out ones too, as text does: what is said of each tells what kind of thing it is.

    Of a noun that is not held out, its category is named now and then, in the same sentences.
    """
    categories = rng.choices(tuple(_USES), k=rng.randint(4, 8))
    return " ".join(_use(rng, rng.choice(words.NOUNS_BY_CATEGORY[category]), category) for category in categories)


def _use(rng: random.Random, noun: str, category: str) -> str:
    is_named = not words.is_held_out(noun) and rng.random() < NAMED_SHARE
    use = f"is {words.with_article(category)}" if is_named else rng.choice(_USES[category])
    return rng.choice(_ABOUT).format(noun=noun, a_noun=words.with_article(noun), use=use)


NAMED_SHARE = 0.3
"""Share of what is said of a noun that is not held out that names its category."""

_ABOUT = (
    "The {noun} {use}.", "The {noun} {use}.", "There is {a_noun} that {use}.", "I know {a_noun} that {use}.",
    "It is {a_noun} and it {use}.",
)  # fmt: skip
"""Sentences about a noun, the noun at their start or not."""


_USES = {
    "animal": (
        "slept in the grass", "ran away from us", "was hungry and looked for something to eat", "opened its eyes",
        "has two ears and it can hear us", "hid behind the tree", "drank from the pond", "was afraid of the dog",
        "lives in the wild", "was born in spring", "ran to its mother",
    ),
    "food": (
        "was sweet and soft", "is on my plate", "tasted good", "was eaten with a spoon", "is still too hot to eat",
        "was for lunch", "went well with bread", "smelled fresh from the oven", "was cut and shared at dinner",
        "made us want to eat more", "was all that I had for breakfast",
    ),
    "tool": (
        "was used to fix the roof", "is in the shed with the others", "is for work", "broke while he was working",
        "was there to build the wall", "is made of iron and wood", "hung on a hook over the bench", "did the job",
        "lay in the box, ready for use", "made the work easy", "belongs in your hand when you build",
    ),
    "garment": (
        "was too big for me", "hung up to dry", "was warm to wear", "went over her head", "got wet in the rain",
        "fits him well", "had to be washed", "has a button missing", "was put on before she went out",
        "looked fine on him", "was sewn from soft cloth",
    ),
    "vehicle": (
        "took us to town", "was fast on the way home", "stopped and we got out", "had room for ten to ride",
        "left without us at noon", "took us over the hill", "needs a driver", "came late again",
        "turned left and went on", "was full, so we waited for the next", "brought the goods to the city",
    ),
    "building": (
        "had ten people inside", "has a big door", "stands at the end of the street", "has three floors",
        "was built long ago", "opens its doors at nine", "has thick walls", "has a new roof",
        "is where we met on Monday", "was empty at night", "has many rooms",
    ),
    "person": (
        "said good morning to us", "asked us for help", "was tired after work", "told us her name", "shook my hand",
        "smiled and said yes", "went home to his wife", "lives next door with two children", "laughed at my joke",
        "read the letter and wrote back", "knows a lot and gets paid for it",
    ),
    "instrument": (
        "was out of tune", "played a sad song", "could be heard all evening", "sounded too loud",
        "was played at the dance", "made music", "started the next song", "has a clear sound", "joined the band",
        "kept the rhythm of the song", "needs a new player in the concert",
    ),
}  # fmt: skip
"""What may be said of any noun of a category; none names the category."""
