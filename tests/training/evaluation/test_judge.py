import time
from pathlib import Path

import pytest

from tests.stub_judge import StubJudge, stub_judge
from training.data.errors import DataError
from training.evaluation.judge import Judge, JudgeError, compare_prompt, grade_prompt, read_grade, read_verdict
from training.evaluation.saved_answers import SavedAnswer

QUESTION = [{"role": "user", "content": "Name the capital of France."}]


def connect(stub: StubJudge, folder: Path, **settings: object) -> Judge:
    return Judge(model="stub", base_url=stub.url, memory=folder / "replies.jsonl", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("85", 85),
        (" 100\n", 100),
        ("0", 0),
        ("72.5", 72.5),
        ("Score: 40.", 40),
        ("90/100", 90),
        ("I give it 60 out of 100, for 2 of its 3 parts.", 60),
        ("**75**", 75),
        ("<think>Perhaps 20? No, 30.</think>\n35", 35),
        ("95%", 95),
        ("85, and again 85", 85),
        ("about 20 to 30", None),
        ("120", None),
        ("-5", None),
        ("3.14.15", None),
        ("Paris", None),
        ("", None),
        ("a1b2", None),
        ("<think>80", None),
        ("The prompt opened my thoughts: 20?</think>\n\n35", 35),
        ("10/10", None),
        ("5 out of 5", None),
        ("9 / 10", None),
        ("80/100, since 2/3 of it is right", 80),
    ],
)
def test_a_grade_is_the_one_number_of_a_reply(reply: str, grade: float | None) -> None:
    assert read_grade(reply) == grade


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("first", "first"),
        ("Second.", "second"),
        ("It is a TIE", "tie"),
        ("<think>first? second?</think>tie", "tie"),
        ("first? second?</think>tie", "tie"),
        ("The first is better than the second", None),
        ("seconds", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_one_word_of_a_reply(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


def test_the_judge_sees_question_reference_and_answer() -> None:
    prompt = grade_prompt(SavedAnswer(QUESTION, "Lyon", "Paris"))
    assert "<question>\nName the capital of France.\n</question>" in prompt
    assert "<reference>\nParis\n</reference>" in prompt
    assert "<answer>\nLyon\n</answer>" in prompt
    turns = [{"role": "system", "content": "Be brief."}, *QUESTION]
    without = grade_prompt(SavedAnswer(turns, "Paris {x}", None))
    assert "reference" not in without
    assert "system: Be brief.\nuser: Name" in without
    assert "Paris {x}" in without
    both = compare_prompt(SavedAnswer(QUESTION, "unused", "Paris"), "one", "two")
    assert "<first>\none\n</first>\n<second>\ntwo\n</second>" in both


def test_each_question_is_asked_once_at_temperature_zero_and_remembered(tmp_path: Path) -> None:
    with stub_judge(lambda prompt: prompt[-1]) as stub:
        assert connect(stub, tmp_path, max_tokens=8).ask(["a1", "b2", "a1"]) == ["1", "2", "1"]
        assert sorted(stub.prompts) == ["a1", "b2"]
        assert {body["temperature"] for body in stub.bodies} == {0}
        assert {body["max_tokens"] for body in stub.bodies} == {8}
        assert connect(stub, tmp_path, max_tokens=8).ask(["b2", "c3"]) == ["2", "3"]
        assert sorted(stub.prompts) == ["a1", "b2", "c3"]
        connect(stub, tmp_path).ask(["a1"])  # other settings are another judge
        assert len(stub.prompts) == 4


def test_a_busy_endpoint_is_asked_again(tmp_path: Path) -> None:
    failures = [429, 500, 503]
    with stub_judge(lambda prompt: failures.pop() if failures else "50") as stub:
        assert connect(stub, tmp_path, parallel=1).ask(["x"]) == ["50"]
        assert len(stub.bodies) == 4


def test_a_refused_question_is_no_reply_and_stops_nothing(tmp_path: Path) -> None:
    with stub_judge(lambda prompt: 400 if prompt == "bad" else "50") as stub:
        assert connect(stub, tmp_path).ask(["good", "bad"]) == ["50", None]
        stub.reply = lambda prompt: "60"  # such as after its context has grown
        assert connect(stub, tmp_path).ask(["good", "bad"]) == ["50", "60"]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_was_said_survives_a_judge_that_breaks_down(tmp_path: Path, status: int) -> None:
    with stub_judge(lambda prompt: "50" if prompt == "good" else status) as stub:
        with pytest.raises(JudgeError, match=r"--base-url: http.*what the judge said so far is\s+in .*replies.jsonl"):
            connect(stub, tmp_path, parallel=1, retries=1).ask(["good", "bad", "worse"])
        stub.reply = lambda prompt: "70"
        stub.bodies.clear()
        assert connect(stub, tmp_path).ask(["good", "bad", "worse"]) == ["50", "70", "70"]
        assert "good" not in stub.prompts


def test_a_reply_is_on_disk_while_an_earlier_question_is_still_unanswered(tmp_path: Path) -> None:
    memory, seen = tmp_path / "replies.jsonl", []

    def reply(prompt: str) -> str:
        deadline = time.monotonic() + 5
        while prompt == "slow" and not seen and time.monotonic() < deadline:
            seen.extend(memory.read_text().splitlines())
            time.sleep(0.01)
        return "50"

    with stub_judge(reply) as stub:
        connect(stub, tmp_path, parallel=2).ask(["slow", "quick"])
    assert len(seen) == 1


def test_a_reply_with_unusual_ends_of_lines_is_read_back(tmp_path: Path) -> None:
    with stub_judge(lambda prompt: "50\u2028\u0085") as stub:
        connect(stub, tmp_path).ask(["x"])
        assert connect(stub, tmp_path).ask(["x"]) == ["50\u2028\u0085"]
        assert len(stub.bodies) == 1


def test_a_line_that_a_kill_cut_short_is_asked_again(tmp_path: Path) -> None:
    with stub_judge(lambda prompt: "50") as stub:
        connect(stub, tmp_path).ask(["x", "y"])
        memory = tmp_path / "replies.jsonl"
        memory.write_text(memory.read_text()[:-9])
        assert connect(stub, tmp_path).ask(["x", "y"]) == ["50", "50"]
        assert len(stub.bodies) == 3
        assert len(connect(stub, tmp_path).said) == 2


def test_a_judge_needs_an_address_and_a_memory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    memory = tmp_path / "replies.jsonl"
    with pytest.raises(ValueError, match="--base-url: required, or OPENAI_BASE_URL"):
        Judge(model="m", base_url=None, memory=memory)
    memory.write_text("something else\n")
    with pytest.raises(DataError, match="line 1 is not what a judge said"):
        Judge(model="m", base_url="http://127.0.0.1:1/v1", memory=memory)
