"""Instruction tasks whose answers can be checked exactly, with words and phrasings that only the test may use.

It does not know tokens or models. What is held out is fixed by `words.is_held_out` and by each kind's
`held_out_templates`, before anything is trained: a held-out word or phrasing occurs in no training conversation.
"""

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.demo import words
from training.demo.cores import CORES, GREETINGS
from training.demo.phrasings import direct_phrasings, is_close, loosened, referring_phrasings, words_of

Message = dict[str, str]
Split = Literal["train", "words", "templates", "both"]
"""What is held out: nothing, the words, the phrasing, or both."""

PSEUDO_SHARE = 0.5
"""Share of training items, in kinds that follow a rule of letters, whose word is made up."""

UNQUOTED_SHARE = 0.15
"""Share of training items about one word that lack the quotes around it, as a hasty reader types."""

OWN_SHARE, DIRECT_SHARE, REFERRING_SHARE = 0.35, 0.35, 0.3
"""Shares of training items put in a kind's first phrasings, the ones that the test of new words asks in, in others that
hold what they are about, and in those that refer back to it."""

LOOSE_SHARE = 0.25
"""Share of training items with one small word left out or replaced by a made-up one."""

POLITE_SHARE = 0.4
"""Share of training items with a few more words around the instruction, so that no single word is waited for."""

BEFORE = (
    "Please answer. ", "Hello! ", "Hi. ", "I have a question. ", "One more: ", "Next: ", "Quick! ", "Now this. ",
    "Listen. ", "Can you help me? ", "I need help. ", "Here is a task. ", "Okay. ", "Let us go on. ", "Thank you. ",
)  # fmt: skip
AFTER = (
    " Please.", " Thank you.", " Thanks!", " Can you do that?", " I want to know.", " That is all.", " Do it now.",
    " I am waiting.", " What do you say?", " Be quick.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction and the only reply that counts as right."""

    kind: str
    instruction: str
    answer: str

    def is_right(self, reply: str) -> bool:
        return reply.strip() == self.answer

    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.instruction}, {"role": "assistant", "content": self.answer}]


@dataclass(slots=True)
class Draw:
    """Draws words of one side of the split, each list dealt like a deck, so that words repeat as late as possible."""

    rng: random.Random
    held_out: bool
    trains: bool = True
    """Whether a model learns from what is drawn; False for a test."""
    _decks: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def one(self, pool: tuple[str, ...]) -> str:
        deck = self._decks.setdefault(pool, [])
        if not deck:
            deck.extend(words.split_words(pool, held_out=self.held_out))
            self.rng.shuffle(deck)
        return deck.pop()

    def several(self, draw_one: Callable[[tuple[str, ...]], str], pool: tuple[str, ...], count: int) -> list[str]:
        """Draw different words."""
        found: list[str] = []
        while len(found) < count:
            if (word := draw_one(pool)) not in found:
                found.append(word)
        return found

    def letters(self, pool: tuple[str, ...] = words.NOUNS) -> str:
        """Draw a word for a rule of letters: often a made-up one unless words are held out."""
        if not self.held_out and self.rng.random() < PSEUDO_SHARE:
            return words.pseudo_word(self.rng)
        return self.one(pool)

    def word(self, pool: tuple[str, ...]) -> str:
        """Draw a word of a sentence: in training often a made-up one, so that it is copied rather than known."""
        return self.letters(pool) if self.trains else self.one(pool)

    def name(self, pool: tuple[str, ...] = words.NAMES) -> str:
        name = self.word(pool)
        return name[0].upper() + name[1:]

    def tiny(self, _pool: tuple[str, ...]) -> str:
        """Make up a word of a few letters, in place of one from a list."""
        return words.tiny_word(self.rng)

    def tiny_name(self, pool: tuple[str, ...]) -> str:
        return self.tiny(pool).capitalize()

    def number(self, low: int, high: int) -> int:
        while True:
            number = self.rng.randint(low, high)
            if words.is_held_out(str(number)) == self.held_out:
                return number


Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task: how it may be phrased, and how to fill the gaps and the `answer`."""

    name: str
    fill: Callable[[Draw], Fields]
    templates: tuple[str, ...]
    held_out_templates: tuple[str, ...]

    def task(self, draw: Draw, templates: Sequence[str]) -> Task:
        fields = self.fill(draw)
        return Task(self.name, draw.rng.choice(templates).format(**fields), fields["answer"])

    def training_task(self, draw: Draw) -> Task:
        return self.task(draw, (self.training_phrasing(draw.rng),))

    def training_phrasing(self, rng: random.Random) -> str:
        """Ask as people do, now and then with a word of courtesy or hastily; never nearly as the test does."""
        while True:
            request = self._request(rng)
            phrasing = _hastily(_politely(request, rng), rng)
            if not any(is_close(text, kept) for text in (request, phrasing) for kept in self.held_out_templates):
                return phrasing

    def _request(self, rng: random.Random) -> str:
        direct, referring = further_phrasings(self.name)
        family = rng.choices((self.templates, direct, referring), (OWN_SHARE, DIRECT_SHARE, REFERRING_SHARE))[0]
        request = rng.choice(family)
        return loosened(request, rng, words.pseudo_word(rng)) if rng.random() < LOOSE_SHARE else request


def _politely(request: str, rng: random.Random) -> str:
    if rng.random() >= POLITE_SHARE:
        return request
    before, after = rng.choice(((BEFORE, ("",)), (("",), AFTER), (BEFORE, AFTER)))
    return rng.choice(before) + request + rng.choice(after)


def _hastily(request: str, rng: random.Random) -> str:
    is_hasty = request.count('"') == 2 and rng.random() < UNQUOTED_SHARE
    return request.replace('"', "") if is_hasty else request


@functools.cache
def further_phrasings(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return further ways to ask for a kind: those that hold what they are about, and those that refer back to it."""
    if kind not in CORES:
        return GREETINGS, GREETINGS
    return direct_phrasings(CORES[kind]), referring_phrasings(CORES[kind])


def _rule(pool: tuple[str, ...], rule: Callable[[str], str]) -> Callable[[Draw], Fields]:
    def fill(draw: Draw) -> Fields:
        word = draw.letters(pool)
        return {"word": word, "answer": rule(word)}

    return fill


def _join(draw: Draw) -> Fields:
    first, second = draw.letters(), draw.letters()
    return {"first": first, "second": second, "answer": first + second}


def _swap(draw: Draw) -> Fields:
    first, second = draw.letters(), draw.letters()
    return {"first": first, "second": second, "answer": f'"{second}" "{first}"'}


def _passive(draw: Draw) -> Fields:
    person, thing = draw.word(words.NOUNS_BY_CATEGORY["person"]), draw.word(words.THINGS)
    verb = words.past(draw.word(TRANSITIVE_VERBS))
    return {"sentence": f"The {person} {verb} the {thing}.", "answer": f"The {thing} was {verb} by the {person}."}


def _clause(draw: Draw) -> tuple[str, str, str]:
    """Draw subject, auxiliary and the rest of a sentence."""
    subject = draw.word(words.NOUNS_BY_CATEGORY["animal"])
    if draw.rng.random() < 0.5:
        return subject, "is", draw.word(words.ADJECTIVES)
    return subject, draw.rng.choice(("can", "will", "must", "should")), draw.word(words.VERBS)


def _question(draw: Draw) -> Fields:
    subject, auxiliary, rest = _clause(draw)
    answer = f"{auxiliary.capitalize()} the {subject} {rest}?"
    return {"sentence": f"The {subject} {auxiliary} {rest}.", "answer": answer}


def _negation(draw: Draw) -> Fields:
    subject, auxiliary, rest = _clause(draw)
    sentence = f"The {subject} {auxiliary} {rest}."
    return {"sentence": sentence, "answer": f"The {subject} {auxiliary} not {rest}."}


UNITS = (
    ("kilometers", 1000, "meters"),
    ("meters", 100, "centimeters"),
    ("centimeters", 10, "millimeters"),
    ("kilograms", 1000, "grams"),
    ("liters", 1000, "milliliters"),
    ("dollars", 100, "cents"),
    ("centuries", 100, "years"),
    ("decades", 10, "years"),
)


def _unit(draw: Draw) -> Fields:
    big, factor, small = draw.rng.choice(UNITS)
    number = draw.number(2, 999)
    return {"number": str(number), "big": big, "small": small, "answer": f"{number * factor} {small}"}


def _bigger(draw: Draw) -> Fields:
    first = second = draw.number(10, 999)
    while second == first:
        second = draw.number(10, 999)
    return {"first": str(first), "second": str(second), "answer": str(max(first, second))}


def _smallest(draw: Draw) -> Fields:
    numbers = [draw.number(10, 99)]
    while len(numbers) < 3:
        if (number := draw.number(10, 99)) not in numbers:
            numbers.append(number)
    return {"numbers": "{}, {} and {}".format(*numbers), "answer": str(min(numbers))}


def _reading(draw: Draw) -> Fields:
    count = draw.rng.randint(2, 4) if draw.trains else 2
    names, things = draw.several(draw.name, words.NAMES, count), draw.several(draw.word, words.THINGS, count)
    which = draw.rng.randrange(count)
    facts = " ".join(f"{name} has {words.with_article(thing)}." for name, thing in zip(names, things, strict=True))
    return {"facts": facts, "thing": things[which], "answer": f"That is {names[which]}."}


def questions_about_owners(draw: Draw) -> list[Message]:
    """Ask for several owners in one conversation, often of tiny names, so that much is to be found in few words."""
    count, is_tiny = draw.rng.randint(2, 5), draw.rng.random() < TINY_SHARE
    names = draw.several(draw.tiny_name if is_tiny else draw.name, words.NAMES, count)
    things = draw.several(draw.tiny if is_tiny else draw.word, words.THINGS, count)
    owners = list(zip(names, things, strict=True))
    talk = " ".join(f"{name} has {words.with_article(thing)}." for name, thing in owners) + " "
    messages = []
    for name, thing in draw.rng.sample(owners, count):
        question = draw.rng.choice(OWNER_QUESTIONS).format(thing=thing)
        messages += [{"role": "user", "content": talk + question}, {"role": "assistant", "content": f"That is {name}."}]
        talk = ""
    return messages


TINY_SHARE = 0.6
"""Share of such conversations whose names and things have one to three letters."""

OWNER_QUESTIONS = ("Who has the {thing}?", "The {thing}: who has it?", "And the {thing}?", "Say who has the {thing}.")
"""Ways to ask once more for an owner."""


def _category(draw: Draw) -> Fields:
    category = draw.rng.choice(tuple(words.NOUNS_BY_CATEGORY))
    noun = draw.one(words.NOUNS_BY_CATEGORY[category])
    return {"noun": words.with_article(noun), "answer": f"{words.with_article(category).capitalize()}."}


def _name(draw: Draw) -> Fields:
    name = draw.name()
    return {"name": name, "answer": f"Nice to meet you, {name}!"}


_TRANSITIVE = words.split_list(
    """admire bake bury carry carve change chase check clean clear collect color copy correct count cover crush
    decorate deliver destroy drain dry dust empty enjoy examine explore fasten fetch fill film fix fold grease
    guard hammer handle heat hide ignore improve invent kick kiss lift load lock love measure mend move need
    notice open order pack paint polish praise pull push remember remove repair rescue return roast scratch
    share slice smash smell soak squeeze start stretch study supply taste touch trace trade trust turn type
    want wash watch water weigh"""
)
TRANSITIVE_VERBS = tuple(verb for verb in words.VERBS if verb in _TRANSITIVE)

WORDS = tuple(sorted({*words.NOUNS, *words.VERBS, *words.ADJECTIVES, *words.UN_ADJECTIVES}))

KINDS: tuple[Kind, ...] = (
    Kind(
        "plural",
        _rule(words.NOUNS, words.plural),
        (
            'What is the plural of "{word}"?',
            'Give the plural of "{word}".',
            'Write the plural form of "{word}".',
            'One "{word}". What is the plural?',
            'Plural of "{word}"?',
            'Turn "{word}" into a plural.',
            'I have one "{word}". Now I have two. What do I have?',
            'Two of "{word}" are called what?',
            'Tell me the plural of "{word}".',
            'The singular is "{word}". Write the plural.',
            'Which word is the plural of "{word}"?',
        ),
        ('Make the noun "{word}" plural, please.', 'If "{word}" is singular, which plural belongs to it?'),
    ),
    Kind(
        "past_tense",
        _rule(words.VERBS, words.past),
        (
            'What is the past tense of "{word}"?',
            'Give the past tense of "{word}".',
            'Write "{word}" in the past tense.',
            'Put the verb "{word}" into the past tense.',
            'Past tense of "{word}"?',
            'How do you say "{word}" in the past?',
            'Tell me the past tense of "{word}".',
            'Today I "{word}". And yesterday?',
            'The verb is "{word}". Write its past tense.',
            'Which word is the past tense of "{word}"?',
            'Say "{word}" in the past tense.',
        ),
        ('Change "{word}" to past tense, please.', 'It happened in the past. Which form of "{word}" fits?'),
    ),
    Kind(
        "ing_form",
        _rule(words.VERBS, words.ing),
        (
            'What is the -ing form of "{word}"?',
            'Give the -ing form of "{word}".',
            'Write the verb "{word}" with -ing.',
            'Add -ing to "{word}".',
            'Turn "{word}" into its -ing form.',
            'Tell me the -ing form of "{word}".',
            'The verb is "{word}". Write it with -ing.',
            'Put -ing at the end of "{word}".',
            'How do you write "{word}" with -ing?',
        ),
        ('Which word do we get from "{word}" and -ing?', 'Please form the -ing word for "{word}".'),
    ),
    Kind(
        "comparative",
        _rule(words.ADJECTIVES, words.comparative),
        (
            'What is the comparative of "{word}"?',
            'Give the comparative form of "{word}".',
            'Write the comparative of the adjective "{word}".',
            'Comparative of "{word}"?',
            'Turn "{word}" into a comparative.',
            'Tell me the comparative of "{word}".',
            'The adjective is "{word}". Write the comparative.',
            'How do you say more "{word}" in one word?',
            'Put "{word}" into the comparative.',
        ),
        ('Please compare: which comparative has "{word}"?', 'Make "{word}" comparative.'),
    ),
    Kind(
        "opposite",
        _rule(words.UN_ADJECTIVES, lambda word: "un" + word),
        (
            'What is the opposite of "{word}"?',
            'Give the opposite of "{word}".',
            'Write the opposite of the adjective "{word}".',
            'Opposite of "{word}"?',
            'Which word is the opposite of "{word}"?',
            'Tell me the opposite of "{word}".',
            'The adjective is "{word}". Write the opposite.',
            'What is not "{word}"?',
            'Say the opposite of "{word}".',
        ),
        ('If it is not "{word}", say the opposite.', 'Please turn "{word}" into its opposite.'),
    ),
    Kind(
        "upper_case",
        _rule(WORDS, str.upper),
        (
            'Write "{word}" in upper case.',
            'Turn "{word}" into upper case.',
            'Give me "{word}" in upper case letters.',
            'Change "{word}" to capital letters.',
            'Put "{word}" in capital letters.',
            'Upper case of "{word}"?',
            'Tell me how to write "{word}" in upper case.',
            'The word is "{word}". Write it in capital letters.',
            'Use only capital letters: "{word}".',
            'Can you write "{word}" in capitals?',
            'Shout "{word}" in capital letters.',
        ),
        ('Please make "{word}" all upper case.', 'How does "{word}" look in capital letters?'),
    ),
    Kind(
        "first_letter",
        _rule(WORDS, lambda word: word[0]),
        (
            'What is the first letter of "{word}"?',
            'Give the first letter of "{word}".',
            'Write the first letter of "{word}".',
            'Which letter comes first in "{word}"?',
            'First letter of "{word}"?',
            'The word "{word}" starts with which first letter?',
            'Tell me the first letter of "{word}".',
            'The word is "{word}". Write its first letter.',
            'Say the first letter of "{word}".',
            'What letter does "{word}" start with?',
        ),
        ('Name the first letter in "{word}".', 'Look at "{word}" and tell me its first letter.'),
    ),
    Kind(
        "last_letter",
        _rule(WORDS, lambda word: word[-1]),
        (
            'What is the last letter of "{word}"?',
            'Give the last letter of "{word}".',
            'Write the last letter of "{word}".',
            'Which letter comes last in "{word}"?',
            'Last letter of "{word}"?',
            'The word "{word}" ends with which last letter?',
            'Tell me the last letter of "{word}".',
            'The word is "{word}". Write its last letter.',
            'Say the last letter of "{word}".',
            'What letter does "{word}" end with?',
        ),
        ('Name the last letter in "{word}".', 'Look at "{word}" and tell me its last letter.'),
    ),
    Kind(
        "spell",
        _rule(WORDS, "-".join),
        (
            'Spell "{word}" with dashes.',
            'Spell the word "{word}".',
            'How do you spell "{word}"?',
            'Write "{word}" with a dash between the letters.',
            'Put dashes between the letters of "{word}".',
            'Can you spell "{word}"?',
            'Tell me how to spell "{word}".',
            'The word is "{word}". Spell it.',
            'Spell "{word}".',
            'Write out the letters of "{word}" with dashes.',
        ),
        ('Please spell out "{word}".', 'I want to see the letters of "{word}" with dashes between them.'),
    ),
    Kind(
        "count_letters",
        _rule(WORDS, lambda word: str(len(word))),
        (
            'How many letters are in "{word}"?',
            'Count the letters in "{word}".',
            'How many letters does "{word}" have?',
            'Give the number of letters in "{word}".',
            'Number of letters in "{word}"?',
            'Tell me how many letters "{word}" has.',
            'The word is "{word}". Count its letters.',
            'How many letters do you need to write "{word}"?',
            'What is the number of letters in "{word}"?',
            'How long is the word "{word}"?',
        ),
        ('How long is "{word}"? Count its letters.', 'Please count how many letters "{word}" has.'),
    ),
    Kind(
        "repeat",
        _rule(WORDS, str),
        (
            'Say "{word}".',
            'Repeat the word "{word}".',
            'Repeat after me: "{word}".',
            'Write the word "{word}" again.',
            'Copy "{word}".',
            'Write "{word}".',
            'The word is "{word}". Repeat it.',
            'Tell me the word "{word}" again.',
            'Say the word "{word}" once more.',
            'Give me the word "{word}" back.',
        ),
        ('Please repeat what I say: "{word}".', 'Can you say "{word}" again?'),
    ),
    Kind(
        "join",
        _join,
        (
            'Join "{first}" and "{second}".',
            'Join the words "{first}" and "{second}" into one.',
            'Make one word from "{first}" and "{second}".',
            'Put "{first}" and "{second}" together.',
            'What do you get when you join "{first}" and "{second}"?',
            'Write "{first}" and "{second}" as one word.',
            'First "{first}", then "{second}": join them.',
            'Tell me what "{first}" and "{second}" make together.',
            'The words are "{first}" and "{second}". Make one word.',
        ),
        ('Glue together "{first}" and "{second}" as one word.', 'Please join: "{first}", "{second}".'),
    ),
    Kind(
        "swap",
        _swap,
        (
            'Swap "{first}" and "{second}".',
            'Swap the words "{first}" and "{second}".',
            'Write "{first}" "{second}" in reverse order.',
            'Reverse the order of "{first}" "{second}".',
            'Change the order of "{first}" and "{second}".',
            'Say "{first}" "{second}" the other way round.',
            'First "{first}", then "{second}": swap them.',
            'The words are "{first}" and "{second}". Reverse their order.',
            'Tell me "{first}" "{second}" in reverse order.',
        ),
        ('Please swap these two: "{first}", "{second}".', 'Take "{first}" "{second}" and reverse their order.'),
    ),
    Kind(
        "passive",
        _passive,
        (
            "Write in the passive voice: {sentence}",
            "Put this into the passive voice: {sentence}",
            "Change to passive: {sentence}",
            "{sentence} Say this in the passive voice.",
            "Turn this into a passive sentence: {sentence}",
            "Say this in the passive voice: {sentence}",
            "Tell me the passive of this: {sentence}",
            "{sentence} Write this sentence in the passive.",
            "Here is a sentence. {sentence} Change it to passive.",
            "{sentence} Make it passive.",
        ),
        ("Please make this sentence passive. {sentence}", "{sentence} How does it sound in passive voice?"),
    ),
    Kind(
        "question",
        _question,
        (
            "Turn this into a question: {sentence}",
            "Make a question: {sentence}",
            "Write this as a question: {sentence}",
            "{sentence} Turn this sentence into a question.",
            "Ask a question: {sentence}",
            "Make this a question: {sentence}",
            "Tell me the question for this: {sentence}",
            "Here is a sentence. {sentence} Write it as a question.",
            "{sentence} Make it a question.",
            "How do you ask this? {sentence}",
        ),
        ("Please form a question from this. {sentence}", "{sentence} How do I ask it as a question?"),
    ),
    Kind(
        "negation",
        _negation,
        (
            "Make this negative: {sentence}",
            "Write the negative of this: {sentence}",
            "Turn this into a negative sentence: {sentence}",
            "{sentence} Make this sentence negative.",
            "Say the negative: {sentence}",
            "Put a not into this: {sentence}",
            "Tell me the negative of this: {sentence}",
            "Here is a sentence. {sentence} Write the negative.",
            "{sentence} Say that this is not so.",
            "{sentence} Make it negative.",
        ),
        ("Please use the negative form here. {sentence}", "{sentence} Now the negative, please."),
    ),
    Kind(
        "units",
        _unit,
        (
            "Convert {number} {big} to {small}.",
            "How many {small} are {number} {big}?",
            "How many {small} are in {number} {big}?",
            "Change {number} {big} into {small}.",
            "What is {number} {big} in {small}?",
            "{number} {big} in {small}?",
            "Tell me how many {small} {number} {big} are.",
            "I have {number} {big}. How many {small} is that?",
            "{number} {big} are how many {small}?",
            "Turn {number} {big} into {small}.",
        ),
        ("Please give me {number} {big} as {small}.", "Express {number} {big} in {small}."),
    ),
    Kind(
        "bigger_number",
        _bigger,
        (
            "Which number is bigger, {first} or {second}?",
            "Which is bigger: {first} or {second}?",
            "Give the bigger number: {first}, {second}.",
            "What is the bigger number, {first} or {second}?",
            "Is {first} or {second} bigger?",
            "Tell me which is bigger, {first} or {second}.",
            "{first} or {second}: which is bigger?",
            "Here are {first} and {second}. Write the bigger one.",
            "Find the bigger number: {first} or {second}.",
            "Which one is bigger, {first} or {second}?",
        ),
        ("Of {first} and {second}, which one is bigger?", "Tell me the bigger of {first} and {second}."),
    ),
    Kind(
        "smallest_number",
        _smallest,
        (
            "Which number is the smallest: {numbers}?",
            "What is the smallest of {numbers}?",
            "Give the smallest number: {numbers}.",
            "Find the smallest of {numbers}.",
            "Which of {numbers} is the smallest?",
            "Tell me the smallest of {numbers}.",
            "The numbers are {numbers}. Which is the smallest?",
            "{numbers}: write the smallest one.",
            "Which one is the smallest, {numbers}?",
            "Say the smallest number of {numbers}.",
        ),
        ("Here are {numbers}. Name the smallest.", "Among {numbers}, pick the smallest number."),
    ),
    Kind(
        "reading",
        _reading,
        (
            "{facts} Who has the {thing}?",
            "{facts} Tell me who has the {thing}.",
            "Read this: {facts} Who has the {thing}?",
            "{facts} The {thing}: who has it?",
            "{facts} Say who has the {thing}.",
            "Here is a text. {facts} Who has the {thing}?",
            "{facts} Where is the {thing}? Who has it?",
            "{facts} Who is the one with the {thing}?",
        ),
        ("{facts} I am looking for the {thing}. Who has it?", "{facts} Which of them has the {thing}?"),
    ),
    Kind(
        "category",
        _category,
        (
            "What kind of thing is {noun}?",
            "What sort of thing is {noun}?",
            "What is {noun}?",
            "Name the category of {noun}.",
            "Tell me what {noun} is.",
            "Say what sort of thing {noun} is.",
            "Do you know what {noun} is?",
            "Is there a word for what {noun} is?",
            "To which category belongs {noun}?",
        ),
        ("Tell me what kind of thing {noun} is.", "Which category fits {noun}?"),
    ),
    Kind(
        "greet_by_name",
        _name,
        (
            "My name is {name}.",
            "Hello, my name is {name}.",
            "Hi, I am {name}.",
            "I am called {name}.",
            "People call me {name}.",
            "Hey, {name} here.",
            "I am {name}.",
            "Hello! I am {name}.",
            "They call me {name}.",
            "Hi, my name is {name}. Nice to meet you.",
        ),
        ("Good day, {name} is my name.", "You can call me {name}."),
    ),
)
"""Every kind, fixed before training."""

EASY_KINDS = ("plural", "past_tense", "upper_case", "first_letter", "last_letter", "spell")
"""The six kinds the quick demo promises, named before it was trained: an early study saw these learned first."""

HARD_KINDS = {
    "reading": 3.0, "category": 3.0, "count_letters": 3.0, "passive": 1.5, "question": 1.5, "negation": 1.5,
    "join": 1.5, "bigger_number": 2.0, "units": 1.5, "greet_by_name": 1.5,
}  # fmt: skip
"""Kinds that the full demo sees more often than the others, and how much: an earlier full demo was weak in them."""

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hi!", "Hello.", "Hi there!", "Hey!", "Good morning!", "Good evening!"), "Hello! How can I help you?"),
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Are you a robot?"),
        "I am a very small language model, trained from scratch on two processor cores.",
    ),
    (
        ("What can you do?", "How can you help me?", "What do you know?", "Help!", "Can you help me?"),
        'I can spell words, change their form, convert units and tell short stories. Try: Spell "apple".',
    ),
    (("Thank you!", "Thanks!", "Thank you.", "Thanks a lot!", "Many thanks."), "You are welcome!"),
    (("How are you?", "How are you today?", "How do you do?", "Are you well?"), "I am fine, thank you!"),
    (("Goodbye!", "Bye!", "See you later!", "Good night!", "Bye bye!"), "Goodbye! Come back soon."),
    (
        ("Are you smart?", "Do you know everything?", "Can you think?", "Are you clever?"),
        "Not very. I am small and I make mistakes.",
    ),
    (("Do you like me?", "Are you my friend?", "Can we be friends?", "I like you."), "I like talking with you."),
)
"""Phrases and the reply to all of them: manners, not a test."""


def instruction_words() -> set[str]:
    """Return the words that training instructions are put in; held-out ones are not worth a token: they are copied."""
    found = words_of(
        phrasing for kind in KINDS for family in (kind.templates, *further_phrasings(kind.name)) for phrasing in family
    )
    return {word for word in found if not words.is_held_out(word)}


KINDS_BY_NAME = {kind.name: kind for kind in KINDS}


def training_tasks(seed: int, weights: Mapping[str, float] | None = None) -> Iterator[Task]:
    """Yield training tasks without end, kinds drawn by weight (1 where `weights` is silent)."""
    draw = Draw(random.Random(seed), held_out=False)
    shares = [(weights or {}).get(kind.name, 1.0) for kind in KINDS]
    while True:
        kind = draw.rng.choices(KINDS, shares)[0]
        yield kind.training_task(draw)


def held_out_tasks(kind: Kind, split: Split, count: int, seed: int = 0) -> list[Task]:
    """Make up to `count` different tasks of one kind for the test; `split` says what training never saw.

    There are fewer where the held-out words and phrasings of a kind do not combine to as many.
    """
    draw = Draw(random.Random(f"{seed}/{kind.name}/{split}"), held_out=split in ("words", "both"), trains=False)
    templates = kind.held_out_templates if split in ("templates", "both") else kind.templates
    tasks: dict[str, Task] = {}
    for _ in range(20 * count):
        task = kind.task(draw, templates)
        tasks.setdefault(task.instruction, task)
    return list(tasks.values())[:count]


def small_talk(rng: random.Random) -> list[Message]:
    phrases, reply = rng.choice(SMALL_TALK)
    return [{"role": "user", "content": rng.choice(phrases)}, {"role": "assistant", "content": reply}]
