"""Labelled texts as batches: encoded, cut, padded on the right.

Models and losses see only the batches; how a text becomes ids is the tokenizer's business.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from model.tokenizer import Tokenizer
from training.data.batches import InOrder, share
from training.data.label_split import answer_weights, class_weights
from training.data.labelled import Example, mark
from training.data.order import LengthGroupedOrder
from training.loss import Batch


class TextBatches:
    """Encoded texts as batches of `idx` (B, T), `lengths` (B,) and `labels`, padded on the right.

    `labels` are indices (B,), or with `is_multi_label` ones and zeros (B, num_labels). Texts longer than `max_length`
    lose their end, or their start; `num_cut` says how many.

    Raises:
        DataError: a label is none of `labels`; the message names `flag`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        labels: Sequence[str],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        cut: Literal["end", "start"] = "end",
        is_multi_label: bool = False,
        is_weighted: bool = False,
        flag: str = "--data",
    ) -> None:
        """With `is_weighted`, batches bring `weights` in the shape of `labels` that give every class the same say."""
        self.marks = mark(examples, labels, flag=flag)
        encoded = [tokenizer.encode(example.text) or [tokenizer.eos_id] for example in examples]
        self.num_cut = sum(len(ids) > max_length for ids in encoded)
        self.ids = [ids[:max_length] if cut == "end" else ids[-max_length:] for ids in encoded]
        self._seen = f"{'first' if cut == 'end' else 'last'} {max_length:,} tokens"
        self.pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id
        self._targets = torch.from_numpy(self.marks.astype(np.float32) if is_multi_label else self.marks.argmax(1))
        self._weights = None
        if is_weighted and is_multi_label:
            no, yes = torch.tensor(answer_weights(examples, labels)).T
            self._weights = torch.where(self._targets > 0, yes, no)
        elif is_weighted:
            self._weights = torch.tensor(class_weights(examples, labels))[self._targets]

    @property
    def notes(self) -> list[str]:
        """Say in a sentence what of the texts is not read, if anything is."""
        return [f"Of {self.num_cut:,} texts only the {self._seen} were read."] if self.num_cut else []

    def shuffled(self, batch_size: int, seed: int) -> "ShuffledTexts":
        """Return the batches to train on, one for each step."""
        return ShuffledTexts(self, batch_size, seed)

    def in_order(self, batch_size: int) -> InOrder:
        """Return every text once, in the order given."""
        return InOrder(self.collate, range(len(self.ids)), batch_size)

    def by_length(self, batch_size: int) -> tuple[InOrder, list[int]]:
        """Return every text once, the shortest first, so that little is padding; and the order they come in."""
        order = sorted(range(len(self.ids)), key=lambda i: len(self.ids[i]))
        return InOrder(self.collate, order, batch_size), order

    def collate(self, items: Sequence[int]) -> Batch:
        """Put some texts into one batch, as wide as the longest of them."""
        lengths = torch.tensor([len(self.ids[i]) for i in items])
        idx = torch.full((len(items), int(lengths.max())), self.pad_id)
        for row, i in enumerate(items):
            idx[row, : len(self.ids[i])] = torch.tensor(self.ids[i])
        chosen = torch.tensor(items)
        batch = {"idx": idx, "lengths": lengths, "labels": self._targets[chosen]}
        return batch if self._weights is None else {**batch, "weights": self._weights[chosen]}


class ShuffledTexts:
    """The batch of each step, of texts similar in length."""

    def __init__(self, texts: TextBatches, batch_size: int, seed: int) -> None:
        self._texts = texts
        self._order = LengthGroupedOrder([len(ids) for ids in texts.ids], batch_size, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's rows of a step's batch, as wide as its longest text on any rank."""
        return share(self._texts.collate(self._order(step).tolist()), rank, world_size)
