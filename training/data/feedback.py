"""Votes of people on answers, one JSON line each, as docs/feedback.md defines them, and the preferences they express.

A pair needs two answers to the same messages: either they stood side by side, or one got a thumb up and another a
thumb down.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.data.errors import DataError

THUMBS = ("up", "down")
CHOICES = ("first", "second", "tie", "neither")


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Answer(BaseModel):
    """What a model said to the messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """The id it is served under."""
    content: str


class Vote(BaseModel):
    """What somebody thinks of one answer, or of two side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(min_length=1)
    """Of the vote; a later line with the same id replaces it."""
    created: int = Field(ge=0)
    """When, in seconds since 1970."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """The conversation up to the question."""
    answers: Annotated[tuple[Answer, ...], Field(min_length=1, max_length=2)]
    """One answer, or two in the order they were shown."""
    vote: Literal["up", "down", "first", "second", "tie", "neither"]
    """On one answer a thumb; of two the better one, or that both are equally good, or equally bad."""
    comment: str | None = None
    """What else was said about it."""

    @model_validator(mode="after")
    def _check_vote(self) -> Self:
        known = THUMBS if len(self.answers) == 1 else CHOICES
        if self.vote not in known:
            answers = "one answer" if len(self.answers) == 1 else "two answers"
            raise ValueError(f"a vote on {answers} is one of {', '.join(known)}, not {self.vote}")
        if self.messages[-1].role == "assistant":
            raise ValueError("messages must end with a question; the answers have their own place")
        return self


class Choice(BaseModel):
    """An answer that was preferred to another one."""

    model_config = ConfigDict(frozen=True)

    record: int
    """Number of the vote in its file, from 1; of two thumbs, that of the later."""
    messages: tuple[Message, ...]
    chosen: str
    rejected: str


def parse_votes(path: Path, records: Sequence[Any], flag: str = "--data") -> list[tuple[int, Vote]]:
    """Return records of a file as votes, with their numbers.

    Raises:
        DataError: a record is no vote.
    """
    votes = []
    for number, record in enumerate(records, 1):
        try:
            votes.append((number, Vote.model_validate(record)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise DataError(
                f"{flag}: {path}: record {number} is no vote: {place + ': ' if place else ''}{message} "
                "(docs/feedback.md has the format)"
            ) from None
    return votes


def choices(votes: Sequence[tuple[int, Vote]]) -> tuple[list[Choice], Counter[str]]:
    """Return the preferences that some votes express, and how many votes express none, by reason.

    Thumbs on answers to the same messages are matched in order; the fewer ones are used again, so that each counts.
    """
    unused: Counter[str] = Counter()
    found: list[Choice] = []
    thumbs: dict[str, list[tuple[int, Vote]]] = {}
    for (number, vote), is_last in zip(votes, _is_last(votes), strict=True):
        if not is_last:
            unused["changed by a later vote"] += 1
        elif vote.vote in THUMBS:
            thumbs.setdefault(_key(vote), []).append((number, vote))
        elif vote.vote in ("tie", "neither"):
            unused["a tie"] += 1
        else:
            first, second = (answer.content for answer in vote.answers)
            if first == second:
                unused["both answers are the same"] += 1
                continue
            chosen, rejected = (first, second) if vote.vote == "first" else (second, first)
            found.append(Choice(record=number, messages=vote.messages, chosen=chosen, rejected=rejected))
    for group in thumbs.values():
        found += _match(group, unused)
    return sorted(found, key=lambda choice: choice.record), unused


def _match(group: Sequence[tuple[int, Vote]], unused: Counter[str]) -> Iterator[Choice]:
    """Yield the pairs of thumbs up and thumbs down on answers to the same messages."""
    balance: Counter[str] = Counter()
    for _, vote in group:
        balance[vote.answers[0].content] += 1 if vote.vote == "up" else -1
    sides: dict[str, list[tuple[int, Vote]]] = {"up": [], "down": []}
    for number, vote in group:
        standing = balance[vote.answers[0].content]
        if standing == 0 or (standing > 0) != (vote.vote == "up"):
            unused["thumbs up and down on the same answer"] += 1
        else:
            sides[vote.vote].append((number, vote))
    up, down = sides["up"], sides["down"]
    if not up or not down:
        for side, missing in (("up", "down"), ("down", "up")):
            if sides[side]:
                unused[f"a thumb {side} without a thumb {missing} on another answer"] += len(sides[side])
        return
    for i in range(max(len(up), len(down))):
        (number, good), (other, bad) = up[i % len(up)], down[i % len(down)]
        chosen, rejected = good.answers[0].content, bad.answers[0].content
        yield Choice(record=max(number, other), messages=good.messages, chosen=chosen, rejected=rejected)


def _is_last(votes: Sequence[tuple[int, Vote]]) -> list[bool]:
    last = {vote.id: number for number, vote in votes}
    return [last[vote.id] == number for number, vote in votes]


def _key(vote: Vote) -> str:
    return json.dumps([message.model_dump() for message in vote.messages])
