"""Conversations: read them, render them to ids and masked targets, batch with right padding.

The words around a message are the chat template's; this file only shifts targets by one and pads.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from model.chat import ChatTemplate
from model.tokenizer import Tokenizer
from training.data.batches import InOrder, share
from training.data.errors import DataError
from training.data.order import LengthGroupedOrder
from training.loss import IGNORE_INDEX, Batch

Conversation = Sequence[Mapping[str, str]]
"""Messages with `role` and `content`; the last one is an assistant's."""


def read_conversations(path: Path) -> list[Conversation]:
    """Read `.json` (a list) or `.jsonl` of instruction/input/output records or of `messages`.

    Raises:
        DataError: unreadable, empty, or a record that is neither kind.
    """
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in content.splitlines() if line.strip()]
        else:
            records = json.loads(content) if content.strip() else []
    except OSError as error:
        raise DataError(f"--data: {path}: {error.strerror}") from None
    except ValueError as error:  # JSON or UTF-8
        raise DataError(f"--data: {path}: {error}") from None
    if not isinstance(records, list) or not records:
        raise DataError(f"--data: {path}: holds no list of records" if records else f"--data: {path}: is empty")
    return [_to_conversation(path, number, record) for number, record in enumerate(records, 1)]


def _to_conversation(path: Path, number: int, record: Any) -> Conversation:
    where = f"--data: {path}: record {number}"
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object")
    if "messages" in record:
        messages = record["messages"]
        if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise DataError(f"{where}: messages must be a list of objects with role and content")
        if messages[-1]["role"] != "assistant":
            raise DataError(f"{where}: the last message must be the assistant's")
        return messages
    for key in ("instruction", "output"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise DataError(f"{where} has no {key!r}; give instruction, input and output, or messages")
    return conversation(record["instruction"], record["output"], given=record.get("input") or "")


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def conversation(instruction: str, answer: str, *, given: str = "") -> Conversation:
    """Make a conversation of one turn; what the instruction is about follows it after a blank line."""
    question = f"{instruction}\n\n{given}" if given else instruction
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class ConversationBatches:
    """Rendered conversations as batches of `idx` and `targets` (B, T); only answers and their ends are targets.

    A conversation that does not fit the context is left out, never cut; `num_dropped` says how many.
    """

    def __init__(
        self, conversations: Iterable[Conversation], template: ChatTemplate, tokenizer: Tokenizer, *, block_size: int
    ) -> None:
        rendered = [template.encode_with_targets(messages) for messages in conversations]
        self.rows = [row for row in rendered if len(row[0]) <= block_size + 1]
        self.num_dropped = len(rendered) - len(self.rows)
        if not self.rows:
            raise DataError(f"--data: no conversation fits the model's context of {block_size} tokens")
        self.pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id

    def shuffled(self, batch_size: int, seed: int) -> "ShuffledConversations":
        """Return the batches to train on, one for each step."""
        return ShuffledConversations(self, batch_size, seed)

    def in_order(self, batch_size: int) -> InOrder:
        """Return every conversation once, shortest first, so that little is padding."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i][0]))
        return InOrder(self.collate, order, batch_size)

    def collate(self, items: Sequence[int]) -> Batch:
        """Put some conversations into one batch, as wide as the longest of them."""
        width = max(len(self.rows[i][0]) for i in items) - 1
        idx = torch.full((len(items), width), self.pad_id)
        targets = torch.full((len(items), width), IGNORE_INDEX)
        for row, i in enumerate(items):
            ids, is_target = self.rows[i]
            idx[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            shifted = [id_ if wanted else IGNORE_INDEX for id_, wanted in zip(ids, is_target, strict=True)][1:]
            targets[row, : len(shifted)] = torch.tensor(shifted)
        return {"idx": idx, "targets": targets}


class ShuffledConversations:
    """The batch of each step, of conversations similar in length."""

    def __init__(self, conversations: ConversationBatches, batch_size: int, seed: int) -> None:
        self._conversations = conversations
        self._order = LengthGroupedOrder([len(ids) for ids, _ in conversations.rows], batch_size, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch, as wide as its longest conversation on any rank."""
        return share(self._conversations.collate(self._order(step).tolist()), rank, world_size)
