"""Conversations: read them, render them to ids and masked targets, batch them padded or packed.

The words around a message are the chat template's; this file only shifts targets by one, pads and packs.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from model.chat import ChatTemplate, ChatTemplateError
from model.tokenizer import Tokenizer
from training.data.batches import InOrder, share
from training.data.errors import DataError
from training.data.order import EpochOrder, LengthGroupedOrder
from training.data.packing import pack
from training.data.records import read_records
from training.loss import IGNORE_INDEX, Batch

logger = logging.getLogger(__name__)

Conversation = Sequence[Mapping[str, str]]
"""Messages with `role` and `content`; the last one is an assistant's."""

LossOn = Literal["answers", "everything"]

SHOWN_NUMBERS = 5
"""Records that a message names before it says that there are more."""


def read_conversations(path: Path, *, heading: str = "\n\n", flag: str = "--data") -> list[Conversation]:
    """Read `.json` (a list) or `.jsonl` of instruction/input/output records or of `messages`; see `read_numbered`."""
    return list(read_numbered(path, heading=heading, flag=flag).values())


def read_numbered(path: Path, *, heading: str = "\n\n", flag: str = "--data") -> dict[int, Conversation]:
    """Read conversations by the number of their record in the file, from 1. Records with an empty answer are left out.

    Args:
        heading: what to put between an instruction and its input (see `model.templates.input_heading`).
        flag: that named the file, for messages.

    Raises:
        DataError: unreadable, empty, or a record that is neither kind.
    """
    records = enumerate(read_records(path, flag), 1)
    found = {number: to_conversation(f"{flag}: {path}: record {number}", each, heading) for number, each in records}
    unanswered = [number for number, messages in found.items() if not messages[-1]["content"].strip()]
    if len(unanswered) == len(found):
        raise DataError(f"{flag}: {path}: every answer is empty")
    if unanswered:
        logger.warning("%s: %d records without an answer are left out: %s", path, *counted(unanswered))
    return {number: messages for number, messages in found.items() if number not in set(unanswered)}


def to_conversation(where: str, record: Any, heading: str) -> Conversation:
    """Return the messages of one record; of a saved response (`training.responses`), with the answer that is right.

    Raises:
        DataError: it is neither kind; `where` leads the message.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object")
    if "messages" in record:
        messages = record["messages"]
        if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise DataError(f"{where}: messages must be a list of objects with role and content")
        if isinstance(answer := record.get("answer"), str) and messages[-1]["role"] != "assistant":
            messages = [*messages, {"role": "assistant", "content": answer}]
        if messages[-1]["role"] != "assistant":
            raise DataError(f"{where}: the last message must be the assistant's")
        if len(messages) < 2:
            raise DataError(f"{where}: there is no message that the assistant's could answer")
        return [{"role": message["role"], "content": message["content"]} for message in messages]
    for key, may_be_empty in (("instruction", False), ("output", True)):
        if not isinstance(record.get(key), str) or not (record[key].strip() or may_be_empty):
            raise DataError(f"{where} has no {key!r}; give instruction, input and output, or messages")
    given = record.get("input") or ""
    if not isinstance(given, str):
        raise DataError(f"{where}: 'input' is not text")
    return conversation(record["instruction"], record["output"], given=given, heading=heading)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def conversation(instruction: str, answer: str, *, given: str = "", heading: str = "\n\n") -> Conversation:
    """Make a conversation of one turn; what the instruction is about follows it after a heading."""
    question = f"{instruction}{heading}{given}" if given else instruction
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def counted(numbers: Sequence[int]) -> tuple[int, str]:
    """Return how many there are, and the first few for a message."""
    shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS]))
    return len(numbers), shown + (", ..." if len(numbers) > SHOWN_NUMBERS else "")


@dataclass(slots=True)
class Row:
    """Ids of a conversation, and which of them are to be learned."""

    ids: list[int]
    is_target: list[bool]
    prompt_length: int
    """Number of ids before its first answer."""


def to_rows(template: ChatTemplate, messages: Conversation, loss_on: LossOn = "answers") -> list[Row]:
    """Render a conversation to what is served turn by turn: one row, mostly.

    A template may write earlier turns otherwise once they lie behind (some leave out thoughts; a token may reach over
    the end of an answer); what was served then differs from what was generated, and a turn begins a row of its own.

    Raises:
        ChatTemplateError: the template refuses the conversation.
    """
    rows: list[Row] = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, answer = template.encode_answer(messages[: turn + 1])
        if not (rows and prompt[: len(rows[-1].ids)] == rows[-1].ids):
            common = common_length(rows[-1].ids, prompt) if rows else 0
            rows.append(Row(prompt[:common], [False] * common, len(prompt)))
        row = rows[-1]
        row.is_target += [loss_on == "everything"] * (len(prompt) - len(row.ids)) + [True] * len(answer)
        row.ids = prompt + answer
    return rows


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two rows have in common from their start."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class ConversationBatches:
    """Rendered conversations as batches of `idx` and `targets` (B, T), int64; the rest is never a target.

    A conversation that does not fit the context is left out, never cut; `warn_of_dropped` says so.

    Args:
        conversations: of one file.
        loss_on: whether only answers and their ends are targets, or prompts too.
        numbers: of the conversations in their file, for messages; None counts from 1.
        flag: that named the file, for messages.

    Raises:
        DataError: the template refuses a conversation, or none fits.
    """

    def __init__(
        self,
        conversations: Iterable[Conversation],
        template: ChatTemplate,
        tokenizer: Tokenizer,
        *,
        block_size: int,
        loss_on: LossOn = "answers",
        numbers: Iterable[int] | None = None,
        flag: str = "--data",
    ) -> None:
        conversations = list(conversations)
        self.numbers = list(numbers) if numbers is not None else list(range(1, len(conversations) + 1))
        self.block_size, self.flag = block_size, flag
        self.rows: list[Row] = []
        self.kept: list[int] = []
        """Places of the conversations that fit, in the order given."""
        self.dropped: dict[int, int] = {}
        """Tokens of each conversation that does not fit, by its number."""
        self._num_too_long_prompts = 0
        for place, (number, messages) in enumerate(zip(self.numbers, conversations, strict=True)):
            try:
                rows = to_rows(template, messages, loss_on)
            except ChatTemplateError as error:
                raise DataError(f"{flag}: record {number}: {error}") from None
            if (length := max(len(row.ids) for row in rows)) > block_size + 1:
                self.dropped[number] = length
                self._num_too_long_prompts += any(row.prompt_length >= block_size for row in rows)
            else:
                self.kept.append(place)
                self.rows += rows
        if not self.rows:
            raise DataError(
                f"{flag}: no conversation fits the model's context of {block_size} tokens; "
                f"the shortest has {min(self.dropped.values())}"
            )
        self.pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id

    @property
    def num_dropped(self) -> int:
        """Number of conversations that do not fit."""
        return len(self.dropped)

    def warn_of_dropped(self) -> None:
        """Say which conversations do not fit, if there are any."""
        if not self.dropped:
            return
        longest = max(self.dropped, key=self.dropped.__getitem__)
        count, shown = counted(list(self.dropped))
        prompts = f"; of {self._num_too_long_prompts} the prompt alone" if self._num_too_long_prompts else ""
        logger.warning(
            "%s: %d of %d conversations are longer than the context of %d tokens and left out, not cut%s. "
            "The longest, record %d, has %d tokens. Records: %s",
            *(self.flag, count, len(self.numbers), self.block_size, prompts, longest, self.dropped[longest], shown),
        )

    def shuffled(self, batch_size: int, seed: int) -> "ShuffledConversations":
        """Return the batches to train on, one for each step."""
        return ShuffledConversations(self, batch_size, seed)

    def packed(self, batch_size: int, seed: int) -> "PackedConversations":
        """Return the batches to train on, several conversations in each row."""
        return PackedConversations(self, batch_size, seed)

    def in_order(self, batch_size: int) -> InOrder:
        """Return every conversation once, shortest first, so that little is padding."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i].ids))
        return InOrder(self.collate, order, batch_size)

    def collate(self, items: Sequence[int]) -> Batch:
        """Put some rows into one batch, as wide as the longest of them."""
        width = max(len(self.rows[i].ids) for i in items) - 1
        idx = torch.full((len(items), width), self.pad_id)
        targets = torch.full((len(items), width), IGNORE_INDEX)
        for place, i in enumerate(items):
            inputs, wanted = shifted(self.rows[i])
            idx[place, : len(inputs)] = torch.tensor(inputs)
            targets[place, : len(wanted)] = torch.tensor(wanted)
        return {"idx": idx, "targets": targets}


def shifted(row: Row) -> tuple[list[int], list[int]]:
    """Return the inputs of a row, and for each the next id if it is to be learned."""
    targets = [id_ if wanted else IGNORE_INDEX for id_, wanted in zip(row.ids, row.is_target, strict=True)]
    return row.ids[:-1], targets[1:]


class ShuffledConversations:
    """The batch of each step, of conversations similar in length."""

    def __init__(self, conversations: ConversationBatches, batch_size: int, seed: int) -> None:
        self._conversations = conversations
        self._order = LengthGroupedOrder([len(row.ids) for row in conversations.rows], batch_size, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch, as wide as its longest conversation on any rank."""
        return share(self._conversations.collate(self._order(step).tolist()), rank, world_size)


class PackedConversations:
    """The batch of each step, of rows that hold several conversations: little padding, and one shape for all steps.

    Beside `idx` and `targets` it has `documents` and `positions` (B, T): no conversation sees another, and each begins
    at position 0. Which conversations share a row is settled once; the rows come in a new order in each epoch.
    """

    def __init__(self, conversations: ConversationBatches, batch_size: int, seed: int) -> None:
        self._conversations = conversations
        lengths = [len(row.ids) - 1 for row in conversations.rows]
        self.bins = pack(lengths, conversations.block_size, seed)
        self.width = max(sum(lengths[i] for i in items) for items in self.bins)
        self._order = EpochOrder(len(self.bins), batch_size, seed)
        share = sum(lengths) / (len(self.bins) * self.width)
        logger.info(
            "%s: %d conversations in %d rows of %d tokens, %.0f%% full",
            *(conversations.flag, len(conversations.kept), len(self.bins), self.width, 100 * share),
        )

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch."""
        return share(self.collate([self.bins[i] for i in self._order(step)]), rank, world_size)

    def collate(self, bins: Sequence[Sequence[int]]) -> Batch:
        """Put some packed rows into one batch; what is left of a row is a document of its own without targets."""
        shape = (len(bins), self.width)
        idx = torch.full(shape, self._conversations.pad_id)
        targets = torch.full(shape, IGNORE_INDEX)
        documents, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        for row, items in enumerate(bins):
            start = 0
            for number, item in enumerate(items):
                inputs, wanted = shifted(self._conversations.rows[item])
                place = (row, slice(start, start := start + len(inputs)))
                idx[place], targets[place] = torch.tensor(inputs), torch.tensor(wanted)
                documents[place], positions[place] = number, torch.arange(len(inputs))
            documents[row, start:], positions[row, start:] = len(items), torch.arange(self.width - start)
        return {"idx": idx, "targets": targets, "documents": documents, "positions": positions}
