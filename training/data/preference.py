"""Preferences out of files: two answers to one prompt, of which one is the better.

Three kinds of records are known: the book's, those of public data sets, and votes (`feedback`). Tokens are `pairs`'s.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.errors import DataError
from training.data.feedback import choices, parse_votes
from training.data.instruction import conversation
from training.data.records import read_records

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, of which the first is the better one."""

    record: int
    """Number of the record in its file, from 1."""
    prompt: Messages
    """The conversation up to the question."""
    chosen: str
    rejected: str


def is_preferences(path: Path) -> bool:
    """Say whether the first record of a file is a preference or a vote, and not a conversation to learn.

    Raises:
        DataError: the file cannot be read.
    """
    record = read_records(path)[0]
    return isinstance(record, dict) and (_is_vote(record) or "chosen" in record)


def read_preferences(
    path: Path, *, heading: str = "\n\n", flag: str = "--data"
) -> tuple[list[Preference], Counter[str]]:
    """Read `.json` (a list) or `.jsonl`, and count the records that hold no preference, by reason.

    Records have `chosen` and `rejected`, beside the book's `instruction` and `input` or beside a `prompt`; each of
    these three may be a string or messages. Or they are votes, as docs/feedback.md defines them.

    Args:
        heading: stands between an instruction and its input.
        flag: that named the file, for messages.

    Raises:
        DataError: unreadable, a record of no kind, or not a single preference.
    """
    records = read_records(path, flag)
    unused: Counter[str] = Counter()
    if isinstance(records[0], dict) and _is_vote(records[0]):
        found, unused = choices(parse_votes(path, records, flag))
        read = [Preference(c.record, [m.model_dump() for m in c.messages], c.chosen, c.rejected) for c in found]
    else:
        read = [
            _to_preference(f"{flag}: {path}: record {i}", i, record, heading) for i, record in enumerate(records, 1)
        ]
    preferences = []
    for each in read:
        if each.chosen == each.rejected:
            unused["chosen and rejected are the same"] += 1
        elif not each.chosen.strip():
            unused["the chosen answer is empty"] += 1
        else:
            preferences.append(each)
    if not preferences:
        raise DataError(f"{flag}: {path}: none of its {len(records)} records makes a pair: {tally(unused)}")
    return preferences, unused


def tally(counts: Counter[str]) -> str:
    """Put counts by reason into words, the largest first."""
    return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def _is_vote(record: Mapping[str, Any]) -> bool:
    return "vote" in record or "answers" in record


def _to_preference(where: str, number: int, record: Any, heading: str) -> Preference:
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object")
    for key in ("chosen", "rejected"):
        if key not in record:
            raise DataError(f"{where} has no {key!r}; give prompt, chosen and rejected")
    if "instruction" in record and "prompt" not in record:
        prompt = _instruction(where, record, heading)
    elif "prompt" in record:
        prompt = _messages(where, "prompt", record["prompt"], role="user")
    else:
        prompt = []  # what the two conversations share
    (before, chosen), (also_before, rejected) = (
        _answer(where, key, record[key], prompt) for key in ("chosen", "rejected")
    )
    if before != also_before:
        raise DataError(f"{where}: chosen and rejected answer different messages; only the last one may differ")
    if not before:
        raise DataError(f"{where} has no 'prompt'; give prompt, chosen and rejected")
    if before[-1]["role"] == "assistant":
        raise DataError(f"{where}: the prompt ends with an assistant's message; it must end with a question")
    return Preference(number, before, chosen, rejected)


def _instruction(where: str, record: Mapping[str, Any], heading: str) -> Messages:
    instruction, given = record["instruction"], record.get("input") or ""
    if not isinstance(instruction, str) or not instruction.strip() or not isinstance(given, str):
        raise DataError(f"{where}: 'instruction' must be a text, and 'input' a text or empty")
    return conversation(instruction, "", given=given, heading=heading)[:1]


def _answer(where: str, key: str, value: Any, prompt: Messages) -> tuple[Messages, str]:
    """Return the prompt and the answer in a text, in an answer as a message, or in a whole conversation."""
    if isinstance(value, str):
        return prompt, value
    messages = _messages(where, key, value, role="assistant")
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(f"{where}: the last message of {key!r} must be the assistant's")
    *before, last = messages
    if before and prompt and before[-len(prompt) :] != [*prompt]:
        raise DataError(f"{where}: {key!r} holds a conversation, but not that of the prompt")
    return before or prompt, last["content"]


def _messages(where: str, key: str, value: Any, *, role: str) -> Messages:
    if isinstance(value, str) and value.strip():
        return [{"role": role, "content": value}]
    keys = ("role", "content")
    if not isinstance(value, list) or not all(
        isinstance(message, dict) and all(isinstance(message.get(name), str) for name in keys) for message in value
    ):
        raise DataError(f"{where}: {key!r} must be a text, or a list of objects with role and content")
    return value
