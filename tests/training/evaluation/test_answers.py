import pytest
from rouge_score.rouge_scorer import RougeScorer

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.data.instruction import conversation
from training.evaluation.answers import Answer, answer, answer_metrics, contains, is_exact, rouge_l


def test_exact_match_forgives_white_space_at_the_ends_only() -> None:
    assert is_exact(Answer(" geese\n", True), "geese")
    for given, wanted in (("geese.", "geese"), ("Geese", "geese"), ("two  mice", "two mice")):
        assert not is_exact(Answer(given, True), wanted)


def test_an_answer_contains_what_it_says_in_whole_words() -> None:
    pairs = [
        ("It is Paris.", "paris", 1),
        ("The  two\nmice", "two mice", 1),
        ("a banana", "an", 0),
        ("The sum is 14.", "4", 0),
        ("C++ it is", "C++", 1),
    ]
    for given, wanted, is_there in pairs:
        assert contains(given, wanted) == is_there, (given, wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("The cat sat on the mat.", "The cat was on the mat!"),
        ("police kill the gunman", "police killed the gunman"),
        ("gunman the kill police", "police killed the gunman"),
        ("one", "one two three one two one"),
        ("snake_case and 3.14", "snake case & 3 14"),
        ("", "nothing"),
        ("...", "!!!"),
    ],
)
def test_rouge_l_equals_that_of_the_rouge_score_package(given: str, wanted: str) -> None:
    oracle = RougeScorer(["rougeL"]).score(wanted, given)["rougeL"].fmeasure
    assert rouge_l(given, wanted) == pytest.approx(oracle, abs=1e-12)


def test_rouge_l_reads_words_of_any_script() -> None:
    assert rouge_l("\u043a\u043e\u0442 \u0441\u043f\u0438\u0442", "\u041a\u043e\u0442 \u0435\u0441\u0442") == 0.5


def test_empty_and_unfinished_answers_are_counted() -> None:
    given = [Answer("", True), Answer("on and on", False), Answer("yes", True), Answer("no", True)]
    metrics = answer_metrics(given, ["x", "on and on", "yes", "yes"])
    assert metrics["empty"] == 0.25
    assert metrics["unfinished"] == 0.25
    assert metrics["exact_match"] == 0.25
    assert metrics["num_answers"] == 4


def test_an_answer_that_ends_in_an_ellipsis_has_come_to_its_end() -> None:
    metrics = answer_metrics([Answer("Once upon a time\u2026", True)], ["Once upon a time\u2026"])
    assert (metrics["exact_match"], metrics["unfinished"]) == (1, 0)


def test_an_answer_cut_short_never_matches(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama"))
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    questions = [conversation("The quick?", "unused")]
    (given,) = answer(model, questions, template, tokenizer, end_ids=[], max_tokens=3)
    assert not given.is_finished
    assert not is_exact(given, given.text)
    first_id = template.encode(questions[0][:-1])[0]
    assert first_id in tokenizer.special_ids
