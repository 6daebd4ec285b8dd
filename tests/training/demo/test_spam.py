"""The messages: balanced, seeded, and not to be told apart by their words."""

import re

from training.baselines import naive_bayes
from training.data.labelled import Example, mark
from training.demo.spam import SCENES, messages
from training.demo.words import is_held_out
from training.evaluation.labels import accuracy


def test_half_of_the_messages_are_spam_and_none_repeats() -> None:
    found = messages(1, 400, held_out=False)
    assert sum(label == "spam" for _, label in found) == 200
    assert len({text for text, _ in found}) == 400


def test_messages_follow_the_seed() -> None:
    assert messages(1, 50, held_out=False) == messages(1, 50, held_out=False) != messages(2, 50, held_out=False)


def test_no_test_message_uses_a_clause_of_the_training_messages() -> None:
    """A clause without gaps can be looked for as it is."""
    clauses = {clause for scene in SCENES for part in (scene.matter, scene.request) for clause in part}
    fixed = {clause.lower() for clause in clauses if "{" not in clause and not is_held_out(clause)}
    for text, _ in messages(1, 400, held_out=True):
        assert not any(clause in text.lower() for clause in fixed), text


def test_every_part_of_a_scene_has_clauses_on_both_sides() -> None:
    for scene in SCENES:
        for part in (scene.opening, scene.matter, scene.request):
            assert {is_held_out(clause) for clause in part} == {True, False}


def test_no_gap_is_left() -> None:
    assert not [text for text, _ in messages(1, 400, held_out=True) if re.search(r"[{}]", text)]


def test_words_alone_do_not_solve_the_test() -> None:
    train, test = (
        [Example(text, (label,)) for text, label in messages(1, count, held_out=held_out)]
        for count, held_out in ((2000, False), (400, True))
    )
    labels = ["ham", "spam"]
    found = naive_bayes([e.text for e in train], mark(train, labels), [e.text for e in test])
    assert accuracy(found, mark(test, labels)) < 0.9
