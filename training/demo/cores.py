"""What each kind of task may be called in training: short phrases, without frames.

It does not know what is held out.
"""

from training.demo.phrasings import Cores

_NOUN = ('"{word}"', 'the word "{word}"', 'the noun "{word}"')
_VERB = ('"{word}"', 'the word "{word}"', 'the verb "{word}"')
_ADJECTIVE = ('"{word}"', 'the word "{word}"', 'the adjective "{word}"')
_TWO = ('"{first}" and "{second}"', 'the words "{first}" and "{second}"')
_THEM = ("them", "these", "the two words")
_THIS = ("this", "it", "this sentence")

CORES: dict[str, Cores] = {
    "plural": Cores(
        (
            "the plural of {x}", "the plural form of {x}", "the form of {x} for more than one",
            "the word for two of {x}",
            "the word for many of {x}",
        ),
        (
            "put {x} into the plural", "write more than one of {x}", "turn {x} into its plural",
            "form the plural of {x}",
            "say {x} in the plural",
        ),
        _NOUN,
    ),
    "past_tense": Cores(
        (
            "the past tense of {x}", "the past form of {x}", "the simple past of {x}", "the form of {x} for yesterday",
            "{x} in the past",
        ),
        (
            "put {x} into the past", "write {x} as if it was yesterday", "use {x} in the past tense",
            "turn {x} into its past form",
            "form the past tense of {x}",
        ),
        _VERB,
    ),
    "ing_form": Cores(
        (
            "the -ing form of {x}", "the form of {x} that ends in -ing", "{x} with -ing at its end", "{x} plus -ing",
            "{x} as an -ing form",
        ),
        (
            "add -ing to {x}", "let {x} end in -ing", "put -ing after {x}", "write {x} with -ing", "attach -ing to {x}",
            "turn {x} into an -ing form",
        ),
        _VERB,
    ),
    "comparative": Cores(
        (
            "the comparative of {x}", "the comparative form of {x}", "the form of {x} for comparing two things",
            "the word for more than {x}", "{x} in the comparative",
        ),
        (
            "put {x} into the comparative", "form the comparative of {x}", "turn {x} into a comparative",
            "use {x} to compare two things", "say {x} in the comparative",
        ),
        _ADJECTIVE,
    ),
    "opposite": Cores(
        (
            "the opposite of {x}", "the contrary of {x}", "the word that means not {x}",
            "the word for the opposite of {x}",
            "{x} with un- before it",
        ),
        (
            "find the opposite of {x}", "put un- before {x}", "turn {x} into the contrary", "say the opposite of {x}",
            "form the opposite of {x}",
        ),
        _ADJECTIVE,
    ),
    "upper_case": Cores(
        (
            "{x} in capital letters", "{x} in upper case", "{x} in big letters", "{x} in capitals",
            "the capital letters of {x}",
        ),
        (
            "write {x} with capital letters only", "change all letters of {x} to capitals", "put {x} into upper case",
            "print {x} in capitals", "turn the letters of {x} into capital letters",
        ),
    ),
    "first_letter": Cores(
        (
            "the first letter of {x}", "the letter at the start of {x}", "the letter that begins {x}",
            "the letter that {x} starts with", "the first character of {x}",
        ),
        (
            "pick the first letter of {x}", "read me the first letter of {x}", "write only the first letter of {x}",
            "say how {x} begins", "find the first letter of {x}",
        ),
    ),
    "last_letter": Cores(
        (
            "the last letter of {x}", "the letter at the end of {x}", "the letter that ends {x}",
            "the letter that {x} ends with", "the last character of {x}",
        ),
        (
            "pick the last letter of {x}", "read me the last letter of {x}", "write only the last letter of {x}",
            "say how {x} ends", "find the last letter of {x}",
        ),
    ),
    "spell": Cores(
        (
            "the spelling of {x}", "the letters of {x}, one by one", "{x} in letters and dashes",
            "the letters of {x} with dashes",
            "{x} letter by letter",
        ),
        (
            "spell {x}", "spell {x} letter by letter", "take {x} apart into letters", "put dashes into {x}",
            "write {x} letter by letter", "write {x} with dashes",
        ),
    ),
    "count_letters": Cores(
        (
            "the number of letters in {x}", "the length of {x}", "the letter count of {x}",
            "the number of letters of {x}",
            "how many letters {x} has",
        ),
        (
            "count the letters of {x}", "say how many letters there are in {x}", "measure {x} in letters",
            "find out how many letters {x} has", "say how long {x} is",
        ),
    ),
    "repeat": Cores(
        ("{x} once more", "just {x}", "{x} one more time", "a copy of {x}", "only {x}, nothing else"),
        (
            "repeat {x}", "say {x} once more", "copy {x}", "give {x} back", "write {x} one more time",
            "leave {x} as it is",
        ),
    ),
    "join": Cores(
        (
            "the word that {x} make", "one word from {x}", "{x} in one word", "{x} without a space",
            "{x} joined together",
        ),
        (
            "join {x}", "write {x} without a space", "put {x} into one word", "connect {x}",
            "combine {x} into one word",
            "make one word of {x}",
        ),
        _TWO,
        _THEM,
    ),
    "swap": Cores(
        (
            "{x} in reverse order", "the reverse of {x}", "{x} the other way round", "the reverse order of {x}",
            "{x} in exchanged places",
        ),
        (
            "swap {x}", "exchange {x}", "turn {x} around", "let {x} change places", "reverse {x}",
            "change the order of {x}",
        ),
        (*_TWO, '"{first}" "{second}"'),
        _THEM,
    ),
    "passive": Cores(
        (
            "the passive of {x}", "the passive form of {x}", "{x} in the passive voice", "{x} as a passive sentence",
            "the passive voice of {x}",
        ),
        (
            "put {x} into the passive", "use the passive voice for {x}", "change {x} into the passive voice",
            "turn {x} into a passive sentence", "say {x} in the passive",
        ),
        (),
        _THIS,
        "{sentence}",
    ),
    "question": Cores(
        (
            "the question for {x}", "{x} as a question", "the question form of {x}", "a question from {x}",
            "the question that belongs to {x}",
        ),
        (
            "turn {x} into a question", "write {x} as a question", "ask whether {x} is so",
            "change {x} into a question",
            "make {x} a question",
        ),
        (),
        _THIS,
        "{sentence}",
    ),
    "negation": Cores(
        (
            "the negative of {x}", "{x} with a not", "the negative form of {x}", "{x} in the negative",
            "{x} as a negative sentence",
        ),
        (
            "make {x} negative", "say that {x} is not so", "put {x} into the negative", "put a not into {x}",
            "deny {x}",
            "turn {x} into a negative sentence",
        ),
        (),
        _THIS,
        "{sentence}",
    ),
    "units": Cores(
        (
            "{x} in {small}", "the number of {small} in {x}", "the {small} in {x}", "how many {small} {x} are",
            "the same as {x}, but in {small}",
        ),
        (
            "convert {x} to {small}", "turn {x} into {small}", "say how many {small} there are in {x}",
            "write {x} in {small}",
            "change {x} into {small}", "measure {x} in {small}",
        ),
        ("{number} {big}",),
        ("it", "this", "that"),
    ),
    "bigger_number": Cores(
        (
            "the bigger number of {x}", "the larger number of {x}", "the bigger one among {x}",
            "the higher number of {x}",
            "the number of {x} that is bigger",
        ),
        (
            "choose the bigger number of {x}", "compare {x} and write the bigger one", "find the larger one of {x}",
            "say which of {x} is bigger", "say which number of {x} is larger",
        ),
        ("{first} and {second}", "the numbers {first} and {second}", "{first} or {second}"),
        ("these", "them", "the two"),
    ),
    "smallest_number": Cores(
        (
            "the smallest number in {x}", "the lowest number of {x}", "the smallest one among {x}",
            "the minimum of {x}",
            "the number of {x} that is the smallest",
        ),
        (
            "find the smallest number in {x}", "compare {x} and write the smallest one", "choose the smallest of {x}",
            "say which of {x} is the smallest", "say which number of {x} is the lowest",
        ),
        ("{numbers}", "the numbers {numbers}"),
        ("these", "them", "the three"),
    ),
    "reading": Cores(
        (
            "the owner of the {thing}", "the one who has the {thing}", "the person with the {thing}",
            "the name of the owner of the {thing}", "who has the {thing}",
        ),
        (
            "say who has the {thing}", "find out who has the {thing}", "name the owner of the {thing}",
            "say to whom the {thing} belongs", "look for the {thing} and say who has it",
        ),
        (),
        ("it",),
        "{facts}",
    ),
    "category": Cores(
        (
            "the category of {x}", "a word for what {x} is", "the group that {x} belongs to", "the class of {x}",
            "the sort of thing that {x} is",
        ),
        (
            "say what {x} is", "put {x} into a group", "sort {x} into a category", "find the right group for {x}",
            "say to which class {x} belongs",
        ),
        ("{noun}",),
        ("it", "this"),
    ),
}  # fmt: skip
"""Phrases by kind; greetings have none, they stand in `GREETINGS`."""

_OPENINGS = (
    "",
    "Hello! ",
    "Hi! ",
    "Hey. ",
    "Good morning. ",
    "Good evening! ",
    "Hi there. ",
    "Hello, ",
    "Hi, ",
    "Well, ",
    "Yes, ",
)
_NAMES = (
    "my name is {name}.", "I am {name}.", "I am called {name}.", "they call me {name}.", "this is {name} speaking.",
    "{name} here.", "my friends call me {name}.", "let me introduce myself: {name}.", "the name is {name}.",
    "I go by {name}.",
    "{name} is who I am.", "everyone calls me {name}.", "my mother named me {name}.", "it is {name}.",
    "{name} is what I am called.",
    "my parents call me {name}.", "I am the new one, {name}.",
)  # fmt: skip
_CLOSINGS = (
    "",
    " Pleased to meet you.",
    " Hello!",
    " And you?",
    " That is me.",
    " Nice to see you.",
    " I am new here.",
)

GREETINGS = tuple(
    opening + (name if opening.endswith(", ") else name[0].upper() + name[1:]) + closing
    for opening in _OPENINGS
    for name in _NAMES
    for closing in _CLOSINGS
)
"""Ways to say one's name."""
