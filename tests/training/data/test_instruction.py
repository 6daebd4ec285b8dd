import json
from collections import Counter
from pathlib import Path

import pytest

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.data.instruction import ConversationBatches, conversation, read_conversations
from training.loss import IGNORE_INDEX


@pytest.fixture
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(DEFAULT_TEMPLATE, tokenizer)


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_the_input_of_an_instruction_follows_it_after_a_blank_line(tmp_path: Path) -> None:
    records = [
        {"instruction": "Spell it.", "input": "freind", "output": "friend"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
    ]
    assert read_conversations(write(tmp_path / "a.json", json.dumps(records))) == [
        [{"role": "user", "content": "Spell it.\n\nfreind"}, {"role": "assistant", "content": "friend"}],
        [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "hi"}],
    ]


def test_messages_are_taken_as_they_are(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *conversation("Hello", "Hi")]
    path = write(tmp_path / "a.jsonl", json.dumps({"messages": messages}) + "\n\n")
    assert read_conversations(path) == [messages]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.json", '{"a": 1}', "no list of records"),
        ("a.json", "[1]", "record 1 is not an object"),
        ("a.json", '[{"instruction": "x"}]', "record 1 has no 'output'"),
        ("a.json", '[{"output": "x"}]', "record 1 has no 'instruction'"),
        ("a.json", "[", "Expecting value"),
        ("a.jsonl", '{"messages": []}', "record 1: messages must be a list"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "objects with role and content"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}', "last message must be the assistant's"),
    ],
)
def test_unusable_data_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_conversations(write(tmp_path / name, content))


def test_targets_are_the_answers_and_their_ends_one_place_earlier(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    two_turns = [*conversation("Quick?", "A fox."), *conversation("And?", "A boat in 1869.")]
    (batch,) = ConversationBatches([two_turns], template, tokenizer, block_size=99).in_order(1)
    targets = [id_ for id_ in batch["targets"][0].tolist() if id_ != IGNORE_INDEX]
    assert tokenizer.decode(targets) == "A fox.<|end|>A boat in 1869.<|end|>"
    for place, target in enumerate(batch["targets"][0, :-1].tolist()):
        assert target in (IGNORE_INDEX, int(batch["idx"][0, place + 1]))


def test_padding_is_on_the_right_and_never_a_target(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation("Go", "x"), conversation("The quick brown fox", "jumps over the lazy dog")]
    (batch,) = ConversationBatches(rows, template, tokenizer, block_size=99).in_order(2)
    is_padding = batch["idx"] == tokenizer.pad_id
    assert is_padding[0, -1]
    assert not is_padding[1].any()
    assert (batch["targets"][is_padding] == IGNORE_INDEX).all()


def test_conversations_that_do_not_fit_are_left_out_and_counted(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation("Go", "x"), conversation("The quick brown fox " * 9, "jumps")]
    batches = ConversationBatches(rows, template, tokenizer, block_size=20)
    assert (len(batches.rows), batches.num_dropped) == (1, 1)


def test_none_that_fits_is_an_error(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    with pytest.raises(DataError, match="no conversation fits the model's context of 3 tokens"):
        ConversationBatches([conversation("Go", "x")], template, tokenizer, block_size=3)


def test_an_epoch_of_shuffled_batches_holds_every_conversation(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation(f"Number {i}?", "lazy " * (i % 7)) for i in range(32)]
    batches = ConversationBatches(rows, template, tokenizer, block_size=99)
    shuffled = batches.shuffled(2, seed=0)
    seen = Counter(tokenizer.decode(row.tolist()).split("?")[0] for step in range(16) for row in shuffled(step)["idx"])
    assert seen == {f"<|user|>Number {i}": 1 for i in range(32)}
