import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.program import poll
from tests.stub_judge import stub_judge
from tests.training.running import started
from training.config.judge import JudgeConfig
from training.data.errors import DataError
from training.data.feedback import parse_votes
from training.data.records import read_records
from training.evaluation.judge import JudgeError
from training.evaluation.judge_command import run
from training.evaluation.votes import read_duels

BOOK = [
    {"instruction": "Add 1 to 3.", "input": "", "output": "4", "model_response": "4"},
    {"instruction": "Spell it.", "input": "cat", "output": "c-a-t", "model_response": "c-a-d"},
    {"instruction": "Say hello.", "input": "", "output": "Hello!", "model_response": "bye"},
]


def write(path: Path, records: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


def with_answers(*answers: str) -> list[dict[str, str]]:
    return [{**record, "model_response": text} for record, text in zip(BOOK, answers, strict=True)]


def part(prompt: str, tag: str) -> str:
    return prompt.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0]


def test_answers_get_grades_and_those_without_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def reply(prompt: str) -> str:
        answer = part(prompt, "answer")
        return "I cannot say" if answer == "bye" else "100" if answer == part(prompt, "reference") else "Grade: 20"

    path = write(tmp_path / "answers.json", BOOK)
    with stub_judge(reply) as stub:
        run(JudgeConfig(responses=path, out=tmp_path / "out", model="stub", base_url=stub.url))
    figures = json.loads(capsys.readouterr().out)
    assert [record.name for record in caplog.records] == ["training.evaluation.judge_command"]  # where the report is
    assert figures["grades"]["mean_grade"] == 60
    assert (figures["grades"]["num_graded"], figures["grades"]["num_without_grade"]) == (2, 1)
    assert figures["answers"]["exact_match"] == pytest.approx(1 / 3)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "I cannot say" in report
    assert "(grades.png)" in report
    assert (tmp_path / "out" / "grades.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (tmp_path / "out" / "grades.jsonl").read_text().splitlines()]
    assert [line["grade"] for line in lines] == [100, 20, None]


def test_pairs_are_judged_both_ways_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(prompt: str) -> str:
        first, second = part(prompt, "first"), part(prompt, "second")
        if "same" in (first, second):
            return "first"  # a judge that favours a place
        return "first" if len(first) > len(second) else "second"

    ours = write(tmp_path / "big" / "responses.json", with_answers("long answer", "x", "same"))
    theirs = write(tmp_path / "small" / "responses.json", with_answers("short", "longer", "other"))
    with stub_judge(reply) as stub:
        settings: dict[str, Any] = {"out": tmp_path / "out", "model": "stub", "base_url": stub.url}
        run(JudgeConfig(responses=ours, against=theirs, **settings))
        assert len(stub.bodies) == 6
        run(JudgeConfig(responses=ours, against=theirs, **settings))
        assert len(stub.bodies) == 6
    figures, _ = capsys.readouterr().out.split("\n}\n")[:2]
    found = json.loads(figures + "\n}")["win_rate"]
    assert (found["num_won"], found["num_tied"], found["num_lost"]) == (1, 1, 1)
    assert found["win_rate"] == 0.5
    assert found["same_verdict_both_ways"] == pytest.approx(2 / 3)
    assert found["verdicts_for_the_first_place"] == pytest.approx(4 / 6)
    votes = tmp_path / "out" / "votes.jsonl"
    assert len(parse_votes(votes, read_records(votes))) == 6
    duels, unused = read_duels(votes)
    assert len(duels) == 6
    assert not unused
    assert {duels[0].first, duels[0].second} == {"big", "small"}


def test_a_few_wins_without_a_loss_prove_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write(tmp_path / "one" / "model" / "responses.json", with_answers("long", "long", "long"))
    theirs = write(tmp_path / "two" / "model" / "responses.json", with_answers("x", "y", "z"))
    with stub_judge(lambda prompt: "first" if part(prompt, "first") == "long" else "second") as stub:
        run(JudgeConfig(responses=ours, against=theirs, out=tmp_path / "out", model="stub", base_url=stub.url))
    found = json.loads(capsys.readouterr().out)["win_rate"]
    assert found["win_rate"] == 1
    assert found["win_rate_low"] == pytest.approx(0.4385, abs=1e-4)  # Wilson's, 3 of 3
    duels, unused = read_duels(tmp_path / "out" / "votes.jsonl")
    assert len(duels) == 6  # although both models are called `model`
    assert not unused


def test_one_grade_has_no_interval_and_none_reaches_beyond_the_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(records: list[dict[str, str]], reply: Callable[[str], str]) -> dict[str, Any]:
        path = write(tmp_path / "answers.json", records)
        with stub_judge(reply) as stub:
            run(JudgeConfig(responses=path, out=tmp_path / "out", model="stub", base_url=stub.url))
        found: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["grades"]
        return found

    assert figures(BOOK[:1], lambda prompt: "50")["mean_grade_low"] is None
    found = figures(BOOK, lambda prompt: "0" if "bye" in prompt else "100")
    assert found["mean_grade_high"] == 100


def test_a_judge_that_gives_no_verdict_at_all_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.json", BOOK)
    other = write(tmp_path / "other.json", with_answers("a", "b", "c"))
    with stub_judge(lambda prompt: "once upon a time") as stub:
        config = JudgeConfig(responses=path, out=tmp_path / "out", model="stub", base_url=stub.url)
        with pytest.raises(JudgeError, match=r"no reply holds a grade from 0 to 100; the first one is 'once upon"):
            run(config)
        with pytest.raises(JudgeError, match=r"no pair has two verdicts"):
            run(config.model_copy(update={"against": other}))


def test_ctrl_c_does_not_wait_for_replies(tmp_path: Path) -> None:
    let_go = threading.Event()
    path = write(tmp_path / "answers.json", BOOK)
    arguments = ["judge", str(path), "--model", "stub", "--out", str(tmp_path / "out"), "--base-url"]
    with stub_judge(lambda prompt: "70" if "hello" in prompt else str(let_go.wait(100))) as stub:
        try:
            with started([*arguments, stub.url], tmp_path / "log") as run:
                poll(lambda: len(stub.bodies) == 3 and (tmp_path / "out/replies.jsonl").read_text(), 100, "no reply")
                run.process.send_signal(signal.SIGINT)
                assert run.process.wait(60) == 130
        finally:
            let_go.set()
    assert len((tmp_path / "out" / "replies.jsonl").read_text().splitlines()) == 1  # what was said is kept


def test_answers_are_not_compared_with_themselves(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.json", BOOK)
    with pytest.raises(DataError, match=r"--against: .*answers.json is the file whose answers are judged"):
        run(
            JudgeConfig(responses=path, against=path, out=tmp_path / "out", model="stub", base_url="http://127.0.0.1:1")
        )


def test_files_without_a_prompt_in_common_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.json", BOOK[:1])
    other = write(tmp_path / "other.json", BOOK[1:])
    with (
        stub_judge(lambda prompt: "first") as stub,
        pytest.raises(DataError, match=r"--against: the two files have no prompt in common"),
    ):
        run(JudgeConfig(responses=path, against=other, out=tmp_path / "out", model="stub", base_url=stub.url))
