import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.templates import TEMPLATES
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.data.errors import DataError
from training.data.instruction import (
    Conversation,
    ConversationBatches,
    conversation,
    read_conversations,
    read_numbered,
    to_rows,
)
from training.loss import IGNORE_INDEX, next_token_loss
from training.vocabulary import train_bpe


@pytest.fixture
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(DEFAULT_TEMPLATE, tokenizer)


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def talk(count: int) -> list[Conversation]:
    """Conversations of one to three turns and many lengths."""
    return [
        [*conversation(f"Number {i}?", "lazy " * (i % 7) + "dog"), *conversation("And?", "fox " * (i % 3))][
            : 4 - 2 * (i % 2)
        ]
        for i in range(count)
    ]


def test_the_input_of_an_instruction_follows_it_under_a_heading(tmp_path: Path) -> None:
    records = [
        {"instruction": "Spell it.", "input": "freind", "output": "friend"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
    ]
    path = write(tmp_path / "a.json", json.dumps(records))
    assert read_conversations(path) == [
        [{"role": "user", "content": "Spell it.\n\nfreind"}, {"role": "assistant", "content": "friend"}],
        [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "hi"}],
    ]
    with_heading = read_conversations(path, heading=TEMPLATES["alpaca"].input_heading)
    assert with_heading[0][0]["content"] == "Spell it.\n\n### Input:\nfreind"


def test_messages_are_taken_as_they_are(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *conversation("Hello", "Hi")]
    path = write(tmp_path / "a.jsonl", json.dumps({"messages": messages}) + "\n\n")
    assert read_conversations(path) == [messages]


def test_a_saved_response_is_the_question_with_its_right_answer(tmp_path: Path) -> None:
    record = {"record": 3, "messages": conversation("Hello", "")[:1], "answer": "Hi", "response": "Ho"}
    path = write(tmp_path / "responses.jsonl", json.dumps(record) + "\n")
    assert read_conversations(path) == [conversation("Hello", "Hi")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.json", '{"a": 1}', "no list of records"),
        ("a.json", "[1]", "record 1 is not an object"),
        ("a.json", '[{"instruction": "x"}]', "record 1 has no 'output'"),
        ("a.json", '[{"output": "x"}]', "record 1 has no 'instruction'"),
        ("a.json", '[{"instruction": "x", "input": 7, "output": "x"}]', "record 1: 'input' is not text"),
        ("a.json", '[{"instruction": "x", "output": " "}]', "every answer is empty"),
        ("a.json", "[", "Expecting value"),
        ("a.jsonl", '{"messages": []}', "record 1: messages must be a list"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "objects with role and content"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}', "last message must be the assistant's"),
        ("a.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}', "no message that the assistant's could"),
    ],
)
def test_unusable_data_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_conversations(write(tmp_path / name, content))


def test_records_without_an_answer_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"instruction": "x", "output": "" if i % 2 else "y"} for i in range(14)]
    found = read_numbered(write(tmp_path / "a.json", json.dumps(records)))
    assert list(found) == [1, 3, 5, 7, 9, 11, 13]
    assert "7 records without an answer are left out: 2, 4, 6, 8, 10, ..." in caplog.text


def test_targets_are_the_answers_and_their_ends_one_place_earlier(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    two_turns = [*conversation("Quick?", "A fox."), *conversation("And?", "A boat in 1869.")]
    (batch,) = ConversationBatches([two_turns], template, tokenizer, block_size=99).in_order(1)
    targets = [id_ for id_ in batch["targets"][0].tolist() if id_ != IGNORE_INDEX]
    assert tokenizer.decode(targets) == "A fox.<|end|>A boat in 1869.<|end|>"
    for place, target in enumerate(batch["targets"][0, :-1].tolist()):
        assert target in (IGNORE_INDEX, int(batch["idx"][0, place + 1]))


def test_everything_can_be_a_target_but_padding(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation("Go", "x"), conversation("The quick brown fox", "jumps over the lazy dog")]
    (batch,) = ConversationBatches(rows, template, tokenizer, block_size=99, loss_on="everything").in_order(2)
    for place, messages in enumerate(rows):
        ids = template.encode(messages, add_generation_prompt=False)
        targets = batch["targets"][place].tolist()
        assert targets == ids[1:] + [IGNORE_INDEX] * (len(targets) - len(ids) + 1)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_several_turns_make_one_row_that_is_what_would_be_served(name: str) -> None:
    control = [token for named in TEMPLATES.values() for token in named.control_tokens]
    tokenizer = train_bpe(
        ["A fox. A dog"] * 4, 300, special_tokens=["<|endoftext|>", "<|pad|>", *dict.fromkeys(control)]
    )
    template = ChatTemplate(TEMPLATES[name].source, tokenizer)  # type: ignore[index]
    messages = [*conversation("Quick?", "A fox."), *conversation("And?", "A dog.")]
    (row,) = to_rows(template, messages)
    assert row.ids[: len(template.encode(messages[:-1]))] == template.encode(messages[:-1])
    end = TEMPLATES[name].end_token or "<|endoftext|>"  # type: ignore[index]
    targets = [id_ for id_, wanted in zip(row.ids, row.is_target, strict=True) if wanted]
    assert tokenizer.decode(targets) == f"A fox.{end}A dog.{end}"


@pytest.mark.parametrize("loss_on", ["answers", "everything"])
def test_a_turn_that_is_served_otherwise_than_the_one_before_was_given_begins_a_row(loss_on: str) -> None:
    tokenizer = train_bpe(['Response:"A fox" Response:"A dog"'] * 9, 320)
    template = ChatTemplate(TEMPLATES["alpaca"].source, tokenizer)
    messages = [*conversation("Quick?", '"A fox"'), *conversation("And?", '"A dog"')]
    first, second = to_rows(template, messages, loss_on)  # type: ignore[arg-type]
    assert first.ids[: first.prompt_length] == template.encode(messages[:1])
    assert second.ids[: second.prompt_length] == template.encode(messages[:3])
    taught = [sum(row.is_target) for row in (first, second)]
    if loss_on == "answers":
        assert taught == [len(row.ids) - row.prompt_length for row in (first, second)]
    else:
        assert taught[0] == len(first.ids)
        assert second.is_target[: first.prompt_length - 1] == [False] * (first.prompt_length - 1)  # taught once


def test_padding_is_on_the_right_and_never_a_target(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation("Go", "x"), conversation("The quick brown fox", "jumps over the lazy dog")]
    (batch,) = ConversationBatches(rows, template, tokenizer, block_size=99).in_order(2)
    is_padding = batch["idx"] == tokenizer.pad_id
    assert is_padding[0, -1]
    assert not is_padding[1].any()
    assert (batch["targets"][is_padding] == IGNORE_INDEX).all()


def test_conversations_that_do_not_fit_are_left_out_and_named(
    tokenizer: Tokenizer, template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [conversation("Go", "x"), conversation("The quick brown fox " * 9, "jumps"), conversation("Go", "on " * 20)]
    batches = ConversationBatches(rows, template, tokenizer, block_size=20, numbers=[4, 8, 9], flag="--test-data")
    assert (len(batches.rows), batches.kept, batches.num_dropped) == (1, [0], 2)
    longest = len(template.encode(rows[1], add_generation_prompt=False))
    assert batches.dropped[8] == longest
    batches.warn_of_dropped()
    for words in (
        "--test-data: 2 of 3 conversations are longer than the context of 20 tokens and left out, not cut",
        "of 1 the prompt alone",
        f"The longest, record 8, has {longest} tokens. Records: 8, 9",
    ):
        assert words in caplog.text


def test_nothing_is_said_where_all_fit(
    tokenizer: Tokenizer, template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    ConversationBatches([conversation("Go", "x")], template, tokenizer, block_size=20).warn_of_dropped()
    assert not caplog.records


def test_none_that_fits_is_an_error(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    with pytest.raises(DataError, match="no conversation fits the model's context of 3 tokens; the shortest has 7"):
        ConversationBatches([conversation("Go", "x")], template, tokenizer, block_size=3)


def test_a_conversation_that_the_template_refuses_is_named(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    odd = [{"role": "narrator", "content": "42"}, *conversation("Go", "x")]
    with pytest.raises(DataError, match=r"--valid-data: record 2: .*narrator"):
        ConversationBatches([conversation("Go", "x"), odd], template, tokenizer, block_size=99, flag="--valid-data")


def test_an_epoch_of_shuffled_batches_holds_every_conversation(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rows = [conversation(f"Number {i}?", "lazy " * (i % 7)) for i in range(32)]
    batches = ConversationBatches(rows, template, tokenizer, block_size=99)
    shuffled = batches.shuffled(2, seed=0)
    seen = Counter(tokenizer.decode(row.tolist()).split("?")[0] for step in range(16) for row in shuffled(step)["idx"])
    assert seen == {f"<|user|>Number {i}": 1 for i in range(32)}


def test_an_epoch_of_packed_batches_holds_every_conversation_whole(
    tokenizer: Tokenizer, template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "training")
    batches = ConversationBatches(talk(30), template, tokenizer, block_size=64)
    packed = batches.packed(1, seed=0)
    assert len(packed.bins) < 20
    assert f"30 conversations in {len(packed.bins)} rows of {packed.width} tokens" in caplog.text
    seen = []
    for step in range(len(packed.bins)):
        batch = {name: tensor[0] for name, tensor in packed(step).items()}
        for document in batch["documents"].unique():
            inside = batch["documents"] == document
            assert batch["positions"][inside].tolist() == list(range(int(inside.sum())))
            if (batch["targets"][inside] != IGNORE_INDEX).any():
                seen.append((batch["idx"][inside].tolist(), batch["targets"][inside].tolist()))
    whole = [(row.ids[:-1], [t if w else IGNORE_INDEX for t, w in zip(row.ids, row.is_target, strict=True)][1:])
             for row in batches.rows]  # fmt: skip
    assert sorted(seen) == sorted(whole)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("loss_on", ["answers", "everything"])
def test_packed_equals_unpacked_in_loss_and_gradient(
    tokenizer: Tokenizer, template: ChatTemplate, kind: str, loss_on: str
) -> None:
    model = make_gpt(make_config(kind)).double()
    batches = ConversationBatches(talk(12), template, tokenizer, block_size=128, loss_on=loss_on)  # type: ignore[arg-type]
    packed = batches.packed(1, seed=0)
    alone = [batches.collate([i]) for i in range(len(batches.rows))]
    found = []
    for parts in (alone, [packed.collate(packed.bins)], [batches.collate(range(len(batches.rows)))]):
        model.zero_grad()
        sums = [next_token_loss(model, batch) for batch in parts]
        loss, count = sum(each.loss for each in sums), sum(int(each.count) for each in sums)
        (loss / count).backward()  # type: ignore[union-attr]
        gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
        found.append((float(loss.detach()) / count, gradient, count))
    (loss, gradient, count), *others = found
    for other_loss, other_gradient, other_count in others:
        assert count == other_count
        assert abs(loss - other_loss) < 1e-12
        for name, value in gradient.items():
            assert torch.allclose(value, other_gradient[name], rtol=1e-9, atol=1e-12), name


def test_no_token_sees_another_conversation_of_its_row(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    model = make_gpt(make_config("llama")).double()
    packed = ConversationBatches(talk(6), template, tokenizer, block_size=128).packed(1, seed=0)
    batch = packed(0)
    others = batch["documents"] != 1
    changed = {**batch, "idx": torch.where(others, (batch["idx"] + 7) % 256, batch["idx"])}
    targets = batch["targets"].where(~others, IGNORE_INDEX)
    losses = [next_token_loss(model, {**each, "targets": targets}).loss.detach() for each in (batch, changed)]
    assert float(losses[0]) > 0
    assert torch.equal(losses[0], losses[1])
