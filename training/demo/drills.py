"""Plain texts that teach the base model one thing each: to copy words, who has what, and what can be said of a noun.

Nothing in them names a category or a form of a held-out word; nouns themselves are all used, as they are in any text.
"""

import random

from training.demo import plots, words

_DRILL_WORDS = (*plots.GIRLS, *plots.BOYS, *plots.TOYS, *plots.COLORS, *plots.BEASTS)


def owning(rng: random.Random) -> str:
    """Say who has what, and then whose each thing is, in another order."""
    count = rng.randint(2, 5)
    pools = [words.split_words(pool, held_out=False) for pool in (words.NAMES, words.THINGS)]
    names, things = (
        [words.pseudo_word(rng) if rng.random() < 0.5 else word for word in rng.sample(pool, count)] for pool in pools
    )
    pairs = [(name[0].upper() + name[1:], thing) for name, thing in zip(names, things, strict=True)]
    said = [f"{name} has {words.with_article(thing)}." for name, thing in pairs]
    rng.shuffle(pairs)
    return " ".join([*said, *(f"The {thing} is with {name}." for name, thing in pairs)])


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
    """Use some nouns, held-out ones too, as text does: what is said of each tells what kind of thing it is."""
    categories = rng.choices(tuple(_USES), k=rng.randint(4, 8))
    nouns = [rng.choice(words.NOUNS_BY_CATEGORY[category]) for category in categories]
    return " ".join(
        f"The {noun} {rng.choice(_USES[category])}." for noun, category in zip(nouns, categories, strict=True)
    )


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
"""How a sentence about any noun of a category may go on; none names the category."""
