"""Answers that were saved for judging, read: those of our finetuning and evaluation, and the book's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.errors import DataError
from training.data.instruction import Conversation, conversation
from training.data.records import read_records


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """What a model said to a prompt."""

    messages: Conversation
    """The prompt, up to the question."""
    text: str
    wanted: str | None
    """A good answer to compare with, if there is one."""
    is_finished: bool = True
    """Whether it came to its end."""


def read_saved_answers(path: Path, flag: str = "RESPONSES") -> list[SavedAnswer]:
    """Read `.jsonl` or `.json` of records with `messages`, `answer` and `response`, or the book's: `instruction`,
    `input`, `output` and `model_response`. The wanted answer (`answer`, `output`) may be absent.

    Raises:
        DataError: unreadable, empty, or a record that is neither.
    """
    return [
        _to_saved_answer(record, f"{flag}: {path}: record {number}")
        for number, record in enumerate(read_records(path, flag), 1)
    ]


def _to_saved_answer(record: Any, where: str) -> SavedAnswer:
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object")
    text = record.get("response", record.get("model_response"))
    if not isinstance(text, str):
        raise DataError(f"{where} has no 'response' (or 'model_response')")
    if "messages" in record:
        messages = record["messages"]
        is_prompt = isinstance(messages, list) and messages and all(map(_is_message, messages))
        if not is_prompt or messages[-1]["role"] == "assistant":
            raise DataError(f"{where}: messages must be objects with role and content, and end with a question")
        wanted = record.get("answer")
    elif isinstance(record.get("instruction"), str):
        messages = conversation(record["instruction"], "", given=record.get("input") or "")[:-1]
        wanted = record.get("output")
    else:
        raise DataError(f"{where} has neither messages nor an instruction")
    wanted = wanted if isinstance(wanted, str) and wanted.strip() else None
    return SavedAnswer(messages, text, wanted, record.get("is_finished") is not False)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
