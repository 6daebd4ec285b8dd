"""What an assistant answers to questions with known answers: a file of them for judges, and how right they are."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from model.gpt import GPT
from training.chat_tools import ChatTools
from training.data.instruction import Conversation
from training.evaluation.answers import Answer, answer

RESPONSES_FILE = "responses.jsonl"
"""Where a checkpoint keeps them."""


@dataclass(frozen=True, slots=True)
class Response:
    """One question, its known answer, and the model's."""

    record: int
    """Number of the conversation in its file."""
    messages: Conversation
    """What was asked."""
    answer: str
    """What is right."""
    response: str
    """What the model said."""
    is_finished: bool
    """Whether it came to its end."""

    @property
    def given(self) -> Answer:
        """The model's answer, to be compared with the right one."""
        return Answer(self.response, self.is_finished)


def respond(
    model: GPT, conversations: Sequence[Conversation], numbers: Collection[int], tools: ChatTools, max_tokens: int
) -> list[Response]:
    """Answer the last question of each conversation greedily."""
    answers = answer(
        model, conversations, tools.template, tools.tokenizer, end_ids=tools.end_ids, max_tokens=max_tokens
    )
    return [
        Response(number, messages[:-1], messages[-1]["content"], given.text, given.is_finished)
        for number, messages, given in zip(numbers, conversations, answers, strict=True)
    ]


def to_jsonl(responses: Sequence[Response]) -> bytes:
    """Return responses as JSON lines."""
    return "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in responses).encode()


def to_markdown(responses: Sequence[Response], count: int = 3) -> str:
    """Return the first few responses for a reader."""
    shown = [
        f"> {quoted(each.messages[-1]['content'])}\n\nRight: {each.answer}\n\nGiven: {each.response}"
        for each in responses[:count]
    ]
    return "\n\n".join(["## Answers", "The first held-out questions, unselected, answered greedily:", *shown])


def quoted(text: str) -> str:
    """Return a text whose further lines belong to the same quotation."""
    return text.replace("\n", "\n> ")
