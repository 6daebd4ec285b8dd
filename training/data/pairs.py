"""Pairs of answers in token ids: rendered from preferences, split by prompt, batched with right padding.

What a reference model thinks of the answers travels with the batches; how it is computed is `training/reference.py`'s
knowledge.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.chat import ChatTemplate, ChatTemplateError
from model.tokenizer import Tokenizer
from training.cross_entropy import IGNORE_INDEX
from training.data.batches import InOrder, share
from training.data.errors import DataError
from training.data.instruction import counted
from training.data.order import LengthGroupedOrder
from training.data.preference import Preference
from training.loss import Batch


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference in token ids; each answer with the token that ends it."""

    record: int
    prompt_ids: Sequence[int]
    chosen_ids: Sequence[int]
    rejected_ids: Sequence[int]

    @property
    def num_tokens(self) -> int:
        """Length of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def render(preferences: Iterable[Preference], template: ChatTemplate, *, flag: str = "--data") -> list[Pair]:
    """Return preferences in token ids, as the model would be asked and would answer.

    Raises:
        DataError: the template refuses a conversation.
    """
    pairs = []
    for each in preferences:
        try:
            (prompt_ids, chosen_ids), (_, rejected_ids) = (
                template.encode_answer([*each.prompt, {"role": "assistant", "content": answer}])
                for answer in (each.chosen, each.rejected)
            )
        except ChatTemplateError as error:
            raise DataError(f"{flag}: record {each.record}: {error}") from None
        pairs.append(Pair(each.record, prompt_ids, chosen_ids, rejected_ids))
    return pairs


def fitting(pairs: Sequence[Pair], block_size: int, *, flag: str = "--data") -> tuple[list[Pair], str]:
    """Leave out the pairs that a model cannot see whole; nothing is ever cut.

    Returns:
        The pairs that fit, and a sentence about the others; "" if there are none.

    Raises:
        DataError: none fits.
    """
    fit = [pair for pair in pairs if pair.num_tokens <= block_size + 1]  # the last token is only predicted
    others = [pair for pair in pairs if pair.num_tokens > block_size + 1]
    if not fit:
        shortest = min(pair.num_tokens for pair in pairs)
        raise DataError(
            f"{flag}: none of {len(pairs)} pairs fits the model's context of {block_size} tokens (the shortest has "
            f"{shortest}); shorten them, or take a base with a longer context"
        )
    if not others:
        return fit, ""
    longest = max(others, key=lambda pair: pair.num_tokens)
    count, shown = counted([pair.record for pair in others])
    return fit, (
        f"left out {count} of {len(pairs)} pairs, longer than the context of {block_size} tokens: records "
        f"{shown}; the longest, record {longest.record}, has {longest.num_tokens}"
    )


def split_pairs(pairs: Sequence[Pair], valid_fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Hold out a random share of the prompts, each with all its pairs, so that none stands on both sides.

    Raises:
        DataError: all pairs have the same prompt.
    """
    prompts = list(dict.fromkeys(tuple(pair.prompt_ids) for pair in pairs))
    if len(prompts) < 2:
        raise DataError(
            "--data: one prompt is too few to train and validate on; add pairs with other prompts, or give --valid-data"
        )
    sizes = Counter(tuple(pair.prompt_ids) for pair in pairs)
    order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    wanted, held_out = round(valid_fraction * len(pairs)), set[tuple[int, ...]]()
    while not held_out or (sum(sizes[prompt] for prompt in held_out) < wanted and len(held_out) < len(prompts) - 1):
        held_out.add(prompts[order.pop()])
    train = [pair for pair in pairs if tuple(pair.prompt_ids) not in held_out]
    return train, [pair for pair in pairs if tuple(pair.prompt_ids) in held_out]


class PreferenceBatches:
    """Pairs as batches of `idx` and `targets` (B, 2, T), chosen before rejected; only the answers are targets.

    Args:
        pairs: that fit the model's context.
        reference: log-probabilities of chosen and rejected answers under the reference model (number of pairs, 2);
            None leaves them out of the batches.
    """

    def __init__(self, pairs: Sequence[Pair], tokenizer: Tokenizer, reference: Tensor | None = None) -> None:
        assert reference is None or reference.shape == (len(pairs), 2), "two numbers for each pair"
        self.pairs = pairs
        self.reference = reference
        self.pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id

    def shuffled(self, batch_size: int, seed: int) -> "ShuffledPairs":
        """Return the batches to train on, one for each step."""
        return ShuffledPairs(self, batch_size, seed)

    def in_order(self, batch_size: int) -> InOrder:
        """Return every pair once, shortest first, so that little is padding."""
        return InOrder(self.collate, self.by_length(), batch_size)

    def by_length(self) -> list[int]:
        """Return the places of the pairs in the order in which `in_order` has them."""
        return sorted(range(len(self.pairs)), key=lambda place: self.pairs[place].num_tokens)

    def collate(self, items: Sequence[int]) -> Batch:
        """Put some pairs into one batch, as wide as the longest answer with its prompt."""
        width = max(self.pairs[i].num_tokens for i in items) - 1
        idx = torch.full((len(items), 2, width), self.pad_id)
        targets = torch.full((len(items), 2, width), IGNORE_INDEX)
        for row, i in enumerate(items):
            prompt_ids = self.pairs[i].prompt_ids
            for side, answer_ids in enumerate((self.pairs[i].chosen_ids, self.pairs[i].rejected_ids)):
                ids = torch.tensor([*prompt_ids, *answer_ids])
                idx[row, side, : len(ids) - 1] = ids[:-1]
                targets[row, side, len(prompt_ids) - 1 : len(ids) - 1] = ids[len(prompt_ids) :]
        batch = {"idx": idx, "targets": targets}
        return batch if self.reference is None else {**batch, "reference": self.reference[list(items)]}


class ShuffledPairs:
    """The batch of each step, of pairs similar in length."""

    def __init__(self, batches: PreferenceBatches, batch_size: int, seed: int) -> None:
        self._batches = batches
        self._order = LengthGroupedOrder([pair.num_tokens for pair in batches.pairs], batch_size, seed)

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's pairs of a step's batch, as wide as its longest answer on any rank."""
        return share(self._batches.collate(self._order(step).tolist()), rank, world_size)
