"""The instruction tasks: right answers, and nothing of the test in anything that trains."""

import hashlib
import itertools
import random
import re
from collections.abc import Iterable

import pytest

from training.demo import words
from training.demo.base_texts import base_documents
from training.demo.conversations import conversations
from training.demo.tasks import (
    EASY_KINDS,
    KINDS,
    KINDS_BY_NAME,
    OWNER_QUESTIONS,
    SMALL_TALK,
    WORDS,
    Draw,
    Kind,
    Split,
    Task,
    held_out_tasks,
    instruction_words,
    questions_about_owners,
    training_tasks,
)

WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z])*")
SPLITS: tuple[Split, ...] = ("words", "templates", "both")


@pytest.fixture(scope="module")
def training_texts() -> list[str]:
    """What the demo learns from, as much as a test can read."""
    talk = [message["content"] for turns in itertools.islice(conversations(5), 6000) for message in turns]
    return [*talk, *itertools.islice(base_documents(5), 2000)]


def held_out(pool: tuple[str, ...]) -> tuple[str, ...]:
    return words.split_words(pool, held_out=True)


def transformed() -> set[str]:
    """Every form that the test asks for and that a text could give away."""
    forms = {words.plural(noun) for noun in held_out(words.NOUNS)}
    forms |= {form(verb) for verb in held_out(words.VERBS) for form in (words.past, words.ing)}
    forms |= {words.comparative(adjective) for adjective in held_out(words.ADJECTIVES)}
    forms |= {"un" + adjective for adjective in held_out(words.UN_ADJECTIVES)}
    forms |= {word.upper() for word in held_out(WORDS)} | {"-".join(word) for word in held_out(WORDS)}
    return forms


def test_no_training_text_holds_a_form_of_a_held_out_word(training_texts: list[str]) -> None:
    seen = set(itertools.chain.from_iterable(WORD.findall(text) for text in training_texts))
    assert seen & transformed() == set()


def test_no_training_task_is_about_a_held_out_word() -> None:
    kept = set(held_out(WORDS))
    for task in itertools.islice(training_tasks(3), 6000):
        assert kept.isdisjoint(re.findall(r'"(\w+)"', task.instruction)), task


def test_no_training_task_asks_for_the_category_of_a_held_out_noun() -> None:
    nouns = {noun for pool in words.NOUNS_BY_CATEGORY.values() for noun in held_out(pool)}
    only = {kind.name: 0.0 for kind in KINDS} | {"category": 1.0}
    asked = [set(WORD.findall(task.instruction)) for task in itertools.islice(training_tasks(3, only), 3000)]
    assert not nouns & set().union(*asked)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_held_out_phrasings_differ_from_every_training_phrasing_in_more_than_a_word(kind: Kind) -> None:
    rng = random.Random(1)
    asked = {kind.training_phrasing(rng) for _ in range(1000)}
    for phrasing in kind.held_out_templates:
        assert min(word_distance(phrasing, text) for text in (*kind.templates, *asked)) >= 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_training_phrasings_seldom_repeat(kind: Kind) -> None:
    rng = random.Random(1)
    assert len({kind.training_phrasing(rng) for _ in range(1000)}) > 600


def test_no_text_is_put_as_the_test_puts_it(training_texts: list[str]) -> None:
    kept = [phrasing for kind in KINDS for phrasing in kind.held_out_templates]
    patterns = [re.sub(r"\\{\w+\\}", r"[\\w ]+", re.escape(phrasing).replace(r"\ ", " ")) for phrasing in kept]
    found = re.compile("|".join(patterns))
    assert not [text for text in training_texts if found.search(text)]


def test_words_of_sentences_are_often_made_up_in_training_and_never_in_a_test() -> None:
    def animals(tasks: Iterable[Task]) -> list[str]:
        return [re.findall(r"The (\w+) (?:is|can|will|must|should) ", task.instruction)[0] for task in tasks]

    only = {kind.name: 0.0 for kind in KINDS} | {"question": 1.0}
    listed = words.NOUNS_BY_CATEGORY["animal"]
    trained = animals(itertools.islice(training_tasks(1, only), 300))
    assert 0.35 < sum(animal in listed for animal in trained) / len(trained) < 0.65
    for split in SPLITS:
        assert set(animals(held_out_tasks(KINDS_BY_NAME["question"], split, 40))) <= set(listed)


def test_the_test_is_what_it_was_for_every_published_figure() -> None:
    items = [held_out_tasks(kind, split, 100, seed=1) for kind in KINDS for split in SPLITS]
    assert hashlib.sha256(repr(items).encode()).hexdigest()[:16] == "ef2e91dd8c7f5ce7"


def test_no_test_item_is_a_training_item() -> None:
    trained = {task.instruction for task in itertools.islice(training_tasks(3), 10_000)}
    tests = {task.instruction for kind in KINDS for split in SPLITS for task in held_out_tasks(kind, split, 60)}
    assert trained & tests == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_test_items_differ_and_follow_the_seed(kind: Kind) -> None:
    items = held_out_tasks(kind, "words", 60)
    assert len({item.instruction for item in items}) == len(items) == 60
    assert items == held_out_tasks(kind, "words", 60)
    assert items != held_out_tasks(kind, "words", 60, seed=1)


def test_held_out_words_repeat_as_late_as_possible() -> None:
    answers = [item.answer for item in held_out_tasks(KINDS_BY_NAME["plural"], "words", 60)]
    assert len(set(answers)) == 60


def test_training_follows_the_seed() -> None:
    def first(seed: int) -> list[object]:
        return list(itertools.islice(training_tasks(seed), 50))

    assert first(1) == first(1) != first(2)


def test_weights_choose_the_kinds() -> None:
    only = {kind.name: 0.0 for kind in KINDS} | {"spell": 1.0}
    assert {task.kind for task in itertools.islice(training_tasks(1, only), 20)} == {"spell"}


@pytest.mark.parametrize(
    ("kind", "instruction", "answer"),
    [
        ("plural", r'"(\w+)"', lambda word: words.plural(word)),
        ("spell", r'"(\w+)"', lambda word: "-".join(word)),
        ("count_letters", r'"(\w+)"', lambda word: str(len(word))),
        ("bigger_number", r"(\d+)\D+(\d+)", lambda a, b: str(max(int(a), int(b)))),
        ("smallest_number", r"(\d+)\D+(\d+)\D+(\d+)", lambda *n: str(min(map(int, n)))),
        ("passive", r"The (\w+) (\w+) the (\w+)\.", lambda a, verb, b: f"The {b} was {verb} by the {a}."),
        ("question", r"The (\w+) (\w+) (\w+)\.", lambda a, aux, b: f"{aux.capitalize()} the {a} {b}?"),
    ],
)
def test_answers_are_right(kind: str, instruction: str, answer) -> None:
    for item in held_out_tasks(KINDS_BY_NAME[kind], "words", 30):
        found = re.search(instruction, item.instruction)
        assert found is not None
        assert item.answer == answer(*found.groups())


def test_only_the_exact_answer_is_right() -> None:
    item = held_out_tasks(KINDS_BY_NAME["plural"], "words", 1)[0]
    assert item.is_right(f" {item.answer}\n")
    assert not item.is_right(item.answer + "s")
    assert not item.is_right(item.answer.upper())


def test_there_are_a_dozen_kinds_and_more() -> None:
    assert len(KINDS) == len(KINDS_BY_NAME) >= 12
    assert set(EASY_KINDS) <= set(KINDS_BY_NAME)


def test_conversations_alternate_and_end_with_the_assistant() -> None:
    lengths = set()
    for turns in itertools.islice(conversations(2), 500):
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        lengths.add(len(turns) // 2)
    assert lengths == {1, 2, 3, 4, 5}


def test_owners_are_asked_for_one_after_another_and_are_those_of_the_first_message() -> None:
    draw, counts = Draw(random.Random(1), held_out=False), set()
    for _ in range(60):
        first, *others = questions_about_owners(draw)
        has = {thing: name for name, thing in re.findall(r"(\w+) has an? (\w+)\.", first["content"])}
        talk = [first["content"].split(". ", len(has))[-1], *(message["content"] for message in others)]
        asked = []
        for question, reply in zip(talk[::2], talk[1::2], strict=True):
            (thing,) = [found[1] for asking in OWNER_QUESTIONS if (found := _asks(asking).fullmatch(question))]
            asked.append(thing)
            assert reply == f"That is {has[thing]}."
        assert sorted(asked) == sorted(has)
        counts.add(len(has))
    assert counts == {2, 3, 4, 5}


def _asks(question: str) -> re.Pattern[str]:
    return re.compile(re.escape(question).replace(r"\{thing\}", r"(\w+)"))


def test_words_of_instructions_are_those_asked_with_and_not_held_out() -> None:
    found = instruction_words()
    assert {"plural", "letter", "reverse", "passive"} <= found
    assert not any(map(words.is_held_out, found))
    assert "wombat" not in found


def test_one_greeting_has_one_reply() -> None:
    phrases = [phrase for phrases, _ in SMALL_TALK for phrase in phrases]
    assert len(phrases) == len(set(phrases))


def word_distance(left: str, right: str) -> int:
    """Count the words to add, drop or replace."""
    a, b = left.split(), right.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
