"""`groundup judge`: saved answers to grades, or to a win rate against another model's."""

import hashlib
import json
import logging
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.config.judge import JudgeConfig
from training.data.errors import DataError
from training.evaluation.answers import Answer, answer_metrics
from training.evaluation.intervals import Z95, share_interval
from training.evaluation.judge import (
    Judge,
    JudgeError,
    Verdict,
    compare_prompt,
    grade_prompt,
    read_grade,
    read_verdict,
)
from training.evaluation.report import Picture, Report, Section, Table, Value, check_place
from training.evaluation.saved_answers import SavedAnswer, read_saved_answers

logger = logging.getLogger(__name__)

NUM_SHOWN = 5
"""Answers of either end that a report shows."""


def run(config: JudgeConfig) -> None:
    """Judge answers, write the report and print its figures as JSON.

    Raises:
        DataError: the answers cannot be used.
        JudgeError: the judge cannot be asked, or gives no verdict at all.
        ReportError: the report cannot be written where it should go.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    check_place(config.out)
    for client in ("httpx", "httpx2"):  # older and newer releases of openai ask through them
        logging.getLogger(client).setLevel(logging.WARNING)  # one line for each question otherwise
    responses = read_saved_answers(config.responses)[: config.limit]
    rivals = read_saved_answers(config.against, "--against") if config.against else None
    judge = Judge(
        model=config.model,
        base_url=config.base_url,
        memory=config.out / "replies.jsonl",
        parallel=config.parallel,
        retries=config.retries,
        timeout_s=config.timeout_s,
        max_tokens=config.max_tokens,
    )
    if rivals is None:
        section = grade(judge, responses)
        title = f"Grades of {name_of(config.responses)}"
    else:
        names = names_of(config.responses, config.against or Path())
        section = compare(judge, responses, rivals, names)
        title = f"{names[0]} against {names[1]}"
    about: dict[str, Value] = {"answers": str(config.responses), "judge": config.model}
    about |= {"endpoint": str(judge.client.base_url), "temperature": 0}
    if config.against:
        about["against"] = str(config.against)
    report = Report(title, about, [section, *answer_sections(responses)])
    report.write(config.out)
    sys.stdout.write(report.figures_json())
    logger.info("wrote %s", config.out / "report.md")


def name_of(path: Path) -> str:
    """Return what to call the model that gave the answers of a file: a `responses.jsonl` is named by its folder."""
    return path.resolve().parent.name if path.stem == "responses" else path.stem


def names_of(ours: Path, theirs: Path) -> tuple[str, str]:
    """Return what to call two models whose answers are compared: not the same, or no vote would tell them apart.

    Raises:
        DataError: it is the same file.
    """
    if ours.resolve() == theirs.resolve():
        raise DataError(f"--against: {theirs} is the file whose answers are judged; give another model's")
    names = name_of(ours), name_of(theirs)
    return names if names[0] != names[1] else (str(ours), str(theirs))


def grade(judge: Judge, responses: Sequence[SavedAnswer]) -> Section:
    """Return the grades of some answers, what has none, and the ends of the list.

    Raises:
        JudgeError: the judge cannot be asked, or none of its replies holds a grade.
    """
    from training.evaluation.charts import draw_histogram  # takes a second to import

    replies = judge.ask([grade_prompt(response) for response in responses])
    grades = [None if reply is None else read_grade(reply) for reply in replies]
    graded = [(g, response) for g, response in zip(grades, responses, strict=True) if g is not None]
    without = [(reply, r) for reply, r, g in zip(replies, responses, grades, strict=True) if g is None]
    if not graded:
        raise JudgeError(f"--model: no reply holds a grade from 0 to 100; the first one is {replies[0]!r}")
    values = [g for g, _ in graded]
    mean = statistics.mean(values)
    half = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    figures: dict[str, Value] = {
        "mean_grade": mean,
        "mean_grade_low": max(mean - half, 0.0),  # in this order, what is no number stays none
        "mean_grade_high": min(mean + half, 100.0),
        "median_grade": statistics.median(values),
        "num_graded": len(values),
        "num_without_grade": sum(reply is not None for reply, _ in without),
        "num_refused": sum(reply is None for reply, _ in without),
    }
    order = sorted(graded, key=lambda item: item[0])
    tables = [
        Table("The lowest grades:", ("grade", "question", "answer"), [_row(*item) for item in order[:NUM_SHOWN]]),
        Table("The highest:", ("grade", "question", "answer"), [_row(*item) for item in order[: -NUM_SHOWN - 1 : -1]]),
    ]
    if without:
        shown = [(reply or "(refused)", _shorten(r.messages[-1]["content"])) for reply, r in without[:NUM_SHOWN]]
        tables.append(Table("Replies without a grade, which count nowhere:", ("reply", "question"), shown))
    picture = draw_histogram(values, title="Grades", label="grade", low=0, high=100, num_bins=20)
    lines = [
        {"record": number, "grade": g, "reply": reply}
        for number, (g, reply) in enumerate(zip(grades, replies, strict=True), 1)
    ]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    return Section(
        "grades",
        "Grades, 0 to 100",
        figures,
        tables=tables,
        pictures=[Picture("grades.png", "How often each grade was given", picture)],
        files={"grades.jsonl": content},
    )


def compare(
    judge: Judge, responses: Sequence[SavedAnswer], rivals: Sequence[SavedAnswer], names: tuple[str, str]
) -> Section:
    """Return how often answers win against a rival's, each pair judged both ways round.

    A pair is won if it is won both ways round; a pair on which the two verdicts differ is a tie.

    Raises:
        DataError: the files have no prompt in common.
        JudgeError: the judge cannot be asked, or none of its replies holds a verdict.
    """
    theirs = {_key(rival): rival.text for rival in rivals}
    pairs = [(response, theirs[_key(response)]) for response in responses if _key(response) in theirs]
    if not pairs:
        raise DataError("--against: the two files have no prompt in common")
    prompts = [
        prompt
        for response, rival in pairs
        for prompt in (compare_prompt(response, response.text, rival), compare_prompt(response, rival, response.text))
    ]
    replies = judge.ask(prompts)
    verdicts = [None if reply is None else read_verdict(reply) for reply in replies]
    rounds = list(zip(verdicts[::2], verdicts[1::2], strict=True))
    outcomes = [_outcome(*each) for each in rounds]
    judged = [outcome for outcome in outcomes if outcome is not None]
    if not judged:
        raise JudgeError(f"--model: no pair has two verdicts (first, second or tie); the first reply is {replies[0]!r}")
    wins, ties, losses = (judged.count(value) for value in (1.0, 0.5, 0.0))
    low, high = share_interval(wins + ties / 2, len(judged))  # if anything too wide: ties vary less than wins
    named = [verdict for verdict in verdicts if verdict is not None]
    figures: dict[str, Value] = {
        "win_rate": statistics.mean(judged),
        "win_rate_low": low,
        "win_rate_high": high,
        "num_won": wins,
        "num_tied": ties,
        "num_lost": losses,
        "same_verdict_both_ways": sum(a is not None and _turned(a) == b for a, b in rounds) / len(judged),
        "verdicts_for_the_first_place": named.count("first") / len(named),
        "num_replies_without_verdict": sum(v is None and r is not None for v, r in zip(verdicts, replies, strict=True)),
        "num_refused": sum(reply is None for reply in replies),
        "num_prompts_without_rival": len(responses) - len(pairs),
    }
    votes = "".join(
        _vote(response, texts, order, verdict)
        for (response, rival), each in zip(pairs, rounds, strict=True)
        for texts, order, verdict in (
            ((response.text, rival), names, each[0]),
            ((rival, response.text), names[::-1], each[1]),
        )
        if verdict is not None
    )
    text = (
        f"A pair counts as won by `{names[0]}` if the judge says so both ways round; where its two verdicts differ, as "
        "a tie. `votes.jsonl` has every verdict in the format of the feedback file: `groundup arena` ranks by it, "
        "`groundup dpo` trains on it."
    )
    return Section("win_rate", f"{names[0]} against {names[1]}", figures, text, files={"votes.jsonl": votes.encode()})


def answer_sections(responses: Sequence[SavedAnswer]) -> list[Section]:
    """Return what needs no judge: how far the answers equal the wanted ones."""
    pairs = [
        (Answer(response.text, response.is_finished), response.wanted)
        for response in responses
        if response.wanted is not None
    ]
    if not pairs:
        return []
    metrics = answer_metrics([given for given, _ in pairs], [wanted for _, wanted in pairs])
    return [Section("answers", "Beside the wanted answers", metrics)]


def _outcome(one: Verdict | None, other: Verdict | None) -> float | None:
    """Return what two verdicts on a pair say of the answer that stood first in the first one."""
    if one is None or other is None:
        return None
    if one != _turned(other):
        return 0.5
    return {"first": 1.0, "second": 0.0, "tie": 0.5}[one]


def _turned(verdict: Verdict) -> Verdict:
    turned: dict[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}
    return turned[verdict]


def _key(response: SavedAnswer) -> str:
    return json.dumps([dict(message) for message in response.messages], sort_keys=True)


def _vote(response: SavedAnswer, texts: Sequence[str], names: Sequence[str], verdict: Verdict) -> str:
    """Return a verdict as a line of the feedback file; its id is the same whenever the same is judged."""
    answers = [{"model": name, "content": text} for name, text in zip(names, texts, strict=True)]
    about = {"messages": [dict(message) for message in response.messages], "answers": answers, "vote": verdict}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return json.dumps({"id": digest, "created": int(time.time()), **about}, ensure_ascii=False) + "\n"


def _row(value: float, response: SavedAnswer) -> tuple[Value, ...]:
    return value, _shorten(response.messages[-1]["content"]), _shorten(response.text)


def _shorten(text: str, size: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= size else flat[: size - 3] + "..."
