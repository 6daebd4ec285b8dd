"""Short stories for pretraining, told from `plots` by drawing people, places and words, and tracking who is meant.

It does not know tokens or tasks.
"""

import random
import re
from dataclasses import dataclass, field

from training.demo import plots, words

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_PART = re.compile(r"<(\w):(.*?)>|([^<]+)")
_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")

PRONOUNS = {"female": ("she", "her", "her"), "male": ("he", "him", "his")}
"""Subject, object, possessive."""


@dataclass(frozen=True, slots=True)
class Person:
    """Hero or friend."""

    name: str
    kind: str
    gender: str

    @classmethod
    def draw(cls, rng: random.Random, kind: str | None = None, *, other_than: str = "") -> "Person":
        kind = kind or rng.choice(plots.HEROES)
        gender = {"girl": "female", "boy": "male", "king": "male"}.get(kind) or rng.choice(("female", "male"))
        names = plots.GIRLS if gender == "female" else plots.BOYS
        return cls(rng.choice([name for name in names if name != other_than]), kind, gender)


@dataclass(frozen=True, slots=True)
class Story:
    """A text, and what it is about."""

    text: str
    hero: Person
    thing: str


def tell(rng: random.Random, hero_kind: str | None = None) -> Story:
    """Tell one story."""
    hero = Person.draw(rng, hero_kind)
    friend = Person.draw(rng, other_than=hero.name)
    things = {
        "toy": rng.choice(plots.TOYS),
        "color": rng.choice(plots.COLORS),
        "food": rng.choice(plots.FOODS),
        "place": rng.choice(plots.PLACES),
        "beast": rng.choice([beast for beast in plots.BEASTS if beast not in (hero.kind, friend.kind)]),
    }
    teller = _Teller(rng, {"h": hero, "f": friend}, things)
    plot = rng.choice(plots.PLOTS)
    telling = rng.randrange(len(plot.wish))
    beats = [beat[telling] for beat in (plot.wish, plot.trouble, plot.turn, plot.end)]
    parts = [teller.introduce(), *map(teller.tell, [*beats, rng.choice(plots.ENDINGS)])]
    return Story(" ".join(part for part in parts if part), hero, things["toy"])


@dataclass(slots=True)
class _Teller:
    """Turns marked-up text into sentences and remembers who was mentioned last, so that pronouns stay clear."""

    rng: random.Random
    people: dict[str, Person]
    things: dict[str, str]
    last: str = ""
    known: set[str] = field(default_factory=set)

    def introduce(self) -> str:
        hero, friend = self.people["h"], self.people["f"]
        trait, home = self.rng.choice(plots.TRAITS), self.rng.choice(plots.HOMES)
        kind, his = words.with_article(f"{trait} {hero.kind}"), PRONOUNS[hero.gender][2].capitalize()
        opening = self.rng.choice(
            (
                f"Once upon a time, there was {kind} named {hero.name}.",
                f"Once upon a time, {kind} named {hero.name} lived {home}.",
                f"{hero.name} was {kind} who lived {home}.",
                f"{home.capitalize()} there lived {kind}. {his} name was {hero.name}.",
                f"There once was {kind} named {hero.name}.",
                f"{_title(hero)} lived {home}.",
                f"Long ago, {kind} lived {home}. {his} name was {hero.name}.",
            )
        )
        self.known = {"h"}
        if self.rng.random() < 0.5:
            other = words.with_article(friend.kind)
            opening += " " + self.rng.choice(
                (
                    f"{his} best friend was {other} named {friend.name}.",
                    f"{_title(friend)} lived next door.",
                    f"{hero.name} had a friend, {other} named {friend.name}.",
                )
            )
            self.known.add("f")
        if self.rng.random() < 0.35:
            opening += f" {self.rng.choice(plots.WEATHERS)}."
        return opening

    def tell(self, beat: str) -> str:
        self.last = ""
        beat = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), beat)
        told, goes_on = [], False
        for who, speech, narration in _PART.findall(beat):
            if speech:
                goes_on = speech.endswith(",")
                told.append(self._say(who, self._fill(speech)))
            elif narration.strip():
                text = self._fill(narration.strip())
                told.append(text if goes_on else _capitalize(text))
                goes_on = False
        return " ".join(told)

    def _say(self, who: str, line: str) -> str:
        if line.endswith(",") or who == "x":
            return f'"{line}"'
        verb = {"?": "asked", "!": self.rng.choice(("cried", "called", "said"))}.get(line[-1], "said")
        before_verb = line[:-1] + "," if line.endswith(".") else line
        speaker = self._mention(who, "")
        if self.rng.random() < 0.35:
            return f'{speaker[0].upper()}{speaker[1:]} {verb}, "{line}"'
        is_pronoun = speaker in ("she", "he")
        return f'"{before_verb}" {speaker} {verb}.' if is_pronoun else f'"{before_verb}" {verb} {speaker}.'

    def _fill(self, text: str) -> str:
        return _SLOT.sub(lambda slot: self._slot(slot[1], slot[2] or ""), text)

    def _slot(self, name: str, form: str) -> str:
        return self._mention(name, form) if name in self.people else self.things[name]

    def _mention(self, who: str, form: str) -> str:
        """Name a person, or use a pronoun where it can only mean that person."""
        person = self.people[who]
        subject, him, his = PRONOUNS[person.gender]
        is_clear = self.last == who
        genders_differ = len({other.gender for other in self.people.values()}) > 1
        self.last = who
        if who not in self.known:
            self.known.add(who)
            return f"{person.name}'s" if form == "his" else self._present(who)
        if form == "name":
            return person.name
        if form == "him":
            return him if is_clear or genders_differ else person.name
        if form == "his":
            return his if is_clear or genders_differ else f"{person.name}'s"
        return subject if is_clear and self.rng.random() < 0.75 else person.name

    def _present(self, who: str) -> str:
        person = self.people[who]
        if person.kind in ("girl", "boy"):
            return f"{person.name} from next door"
        return f"{person.name} the {person.kind}"


def _title(person: Person) -> str:
    return person.name if person.kind in ("girl", "boy") else f"{person.name} the {person.kind}"


def _capitalize(text: str) -> str:
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def story_request(rng: random.Random) -> list[dict[str, str]]:
    """Ask for a story, often about a certain hero, and tell it."""
    story = tell(rng)
    about = words.with_article(story.hero.kind)
    request = rng.choice(
        (
            "Tell me a story.",
            "Tell me a short story.",
            "Please tell me a story!",
            f"Tell me a story about {about}.",
            f"Can you tell me a story about {about}?",
            f"Write a story about {about}.",
            f"Tell me a story about {about} named {story.hero.name}.",
            f"Write a story about {story.hero.name} the {story.hero.kind}.",
        )
    )
    return [{"role": "user", "content": request}, {"role": "assistant", "content": story.text}]
