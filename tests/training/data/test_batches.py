from collections.abc import Sequence

import numpy as np
import pytest
import torch

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.tokenizer import Tokenizer
from training.data.batches import Batches, InOrder, share
from training.data.classification import TextBatches
from training.data.instruction import ConversationBatches, conversation
from training.data.labelled import Example
from training.data.tokens import TokenWindows
from training.loss import IGNORE_INDEX, Batch


def collate(items: Sequence[int]) -> Batch:
    return {"idx": torch.tensor([[i] for i in items]), "targets": torch.tensor([[i + 1] for i in items])}


@pytest.fixture
def kinds(tokenizer: Tokenizer) -> dict[str, Batches]:
    examples = [Example("fox " * (i % 5 + 1), ("ab"[i % 2],)) for i in range(20)]
    talk = [conversation(f"Number {i}?", "lazy " * (i % 7)) for i in range(20)]
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    conversations = ConversationBatches(talk, template, tokenizer, block_size=40)
    return {
        "windows": TokenWindows([np.arange(90, dtype=np.uint16)], block_size=8, stride=3, batch_size=6, seed=1),
        "texts": TextBatches(examples, "ab", tokenizer, max_length=9).shuffled(6, seed=1),
        "conversations": conversations.shuffled(6, seed=1),
        "packed conversations": conversations.packed(6, seed=1),
    }


@pytest.mark.parametrize("kind", ["windows", "texts", "conversations", "packed conversations"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_ranks_rows_are_exactly_those_of_one_process(kinds: dict[str, Batches], kind: str, world_size: int) -> None:
    batches = kinds[kind]
    for step in (0, 3):
        whole = batches(step)
        for rank in range(world_size):
            part = batches(step, rank, world_size)
            assert part.keys() == whole.keys()
            assert all(torch.equal(part[name], whole[name][rank::world_size]) for name in whole)


def test_rows_that_cannot_be_dealt_out_evenly_are_filled_up_with_rows_that_count_nothing() -> None:
    batch = collate(range(5))
    parts = [share(batch, rank, 4) for rank in range(4)]
    assert [len(part["idx"]) for part in parts] == [2, 2, 2, 2]
    targets = torch.cat([part["targets"] for part in parts]).flatten().tolist()
    assert sorted(target for target in targets if target != IGNORE_INDEX) == [1, 2, 3, 4, 5]


def test_batches_in_order_are_made_when_they_are_asked_for() -> None:
    made: list[list[int]] = []

    def remember(items: Sequence[int]) -> Batch:
        made.append(list(items))
        return collate(items)

    batches = InOrder(remember, range(7), 3)
    assert len(batches) == 3
    assert made == []
    assert batches[-1]["idx"].tolist() == [[6]]
    assert made == [[6]]
    assert [batch["idx"].flatten().tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches[1:]) == 2
    assert batches(0, 1, 3)["idx"].tolist() == [[1]]
    with pytest.raises(IndexError):
        batches[3]
