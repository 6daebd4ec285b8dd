import json
from pathlib import Path

import pytest
import torch

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.tokenizer import Tokenizer
from training.cross_entropy import IGNORE_INDEX
from training.data.errors import DataError
from training.data.pairs import Pair, PreferenceBatches, fitting, render, split_pairs
from training.data.preference import Preference, read_preferences


@pytest.fixture
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(DEFAULT_TEMPLATE, tokenizer)


def make(record: int, prompt: int, length: int) -> Pair:
    return Pair(record, [prompt], list(range(10, 10 + length)), [2])


def test_a_pair_is_what_would_be_asked_and_answered(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    talk = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "A fox."},
        {"role": "user", "content": "Why?"},
    ]
    (pair,) = render([Preference(1, talk, "Rain.", "")], template)
    end = tokenizer.special_tokens["<|end|>"]
    assert pair.prompt_ids == template.encode(talk)
    assert pair.chosen_ids == [*tokenizer.encode("Rain."), end]
    assert pair.rejected_ids == [end]


def test_only_answers_are_targets_and_both_stand_behind_the_prompt(tokenizer: Tokenizer) -> None:
    pairs = [Pair(1, [5, 6], [7, 8, 2], [9, 2]), Pair(2, [5], [11, 2], [12, 13, 14, 15, 2])]
    reference = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    batch = PreferenceBatches(pairs, tokenizer, reference).collate([1, 0])
    pad, none = tokenizer.pad_id, IGNORE_INDEX
    assert batch["idx"].tolist() == [
        [[5, 11, pad, pad, pad], [5, 12, 13, 14, 15]],
        [[5, 6, 7, 8, pad], [5, 6, 9, pad, pad]],
    ]
    assert batch["targets"].tolist() == [
        [[11, 2, none, none, none], [12, 13, 14, 15, 2]],
        [[none, 7, 8, 2, none], [none, 9, 2, none, none]],
    ]
    assert batch["reference"].tolist() == [[-3.0, -4.0], [-1.0, -2.0]]


def test_too_long_pairs_are_left_out_and_named_never_cut() -> None:
    pairs = [make(number, 5, 12 if number % 2 else 6) for number in range(1, 15)]
    fit, left_out = fitting(pairs, 8)
    assert [pair.record for pair in fit] == [2, 4, 6, 8, 10, 12, 14]
    assert left_out == (
        "left out 7 of 14 pairs, longer than the context of 8 tokens: records 1, 3, 5, 7, 9, ...; "
        "the longest, record 1, has 13"
    )
    assert fitting(fit, 8) == (fit, "")
    assert fitting([make(1, 5, 8)], 8)[0]  # the last token is only predicted


def test_if_no_pair_fits_it_is_an_error_that_says_what_would_help() -> None:
    with pytest.raises(DataError, match=r"none of 2 pairs fits .* context of 8 tokens \(the shortest has 11\)"):
        fitting([make(1, 5, 10), make(2, 5, 30)], 8)


def test_no_prompt_stands_on_both_sides_of_a_split() -> None:
    pairs = [make(number, number % 20, 3) for number in range(100)]
    train, valid = split_pairs(pairs, 0.2, seed=0)
    assert sorted([*train, *valid], key=lambda pair: pair.record) == pairs
    assert not {pair.prompt_ids[0] for pair in train} & {pair.prompt_ids[0] for pair in valid}
    assert len(valid) == 20
    assert split_pairs(pairs, 0.2, seed=1)[1] != valid


def test_a_split_leaves_something_to_train_on() -> None:
    pairs = [make(1, 1, 3), make(2, 2, 3)]
    assert [len(side) for side in split_pairs(pairs, 0.99, seed=0)] == [1, 1]
    with pytest.raises(DataError, match="one prompt is too few"):
        split_pairs([make(1, 1, 3), make(2, 1, 3)], 0.5, seed=0)


def test_a_conversation_that_the_template_refuses_is_named(template: ChatTemplate) -> None:
    with pytest.raises(DataError, match="--valid-data: record 7: the chat template refuses"):
        render([Preference(7, [{"role": "robot", "content": "x"}], "a", "b")], template, flag="--valid-data")


def test_the_book_s_preferences_are_read(template: ChatTemplate, data_dir: Path) -> None:
    path = data_dir / "instruction-llms-from-scratch" / "instruction-data-with-preference.json"
    found, unused = read_preferences(path)
    assert len(found) + unused.total() == len(json.loads(path.read_text())) == 1100
    assert unused == {"chosen and rejected are the same": 6}
    assert len(fitting(render(found[:20], template), 1024)[0]) == 20
