"""Commands of a conversation: what they change and what they answer."""

from pathlib import Path

import pytest

from client.conversation import Conversation, choose_model
from training.data.instruction import read_conversations

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello \u20ac"}]


@pytest.fixture
def talk() -> Conversation:
    conversation = Conversation("a", "Be kind.", lambda: ["a", "b"])
    conversation.turns += TURNS
    return conversation


def test_instructions_come_first_and_can_be_changed_and_dropped(talk: Conversation) -> None:
    assert talk.messages == [{"role": "system", "content": "Be kind."}, *TURNS]
    assert talk.command("/system  Be brief. ") == "Instructions: Be brief."
    assert talk.messages[0]["content"] == "Be brief."
    assert talk.command("/system") == "Instructions: none"
    assert talk.messages == TURNS


def test_reset_forgets_turns_and_keeps_instructions(talk: Conversation) -> None:
    talk.command("/reset")
    assert talk.messages == [{"role": "system", "content": "Be kind."}]


def test_another_model_can_be_chosen_among_those_there_are(talk: Conversation) -> None:
    assert talk.command("/model") == "* a\n  b"
    assert talk.command("/model b") == "b answers from now on."
    assert talk.model == "b"
    with pytest.raises(ValueError, match=r"/model: no c here; there are: a, b"):
        talk.command("/model c")


def test_saved_conversations_can_teach(talk: Conversation, tmp_path: Path) -> None:
    for _ in range(2):
        talk.command(f"/save {tmp_path / 'said.jsonl'}")
    assert list(read_conversations(tmp_path / "said.jsonl")) == [talk.messages] * 2
    with pytest.raises(ValueError, match="which file"):
        talk.command("/save")
    talk.command("/reset")
    with pytest.raises(ValueError, match="nothing was said"):
        talk.command("/save x")


def test_unknown_commands_are_named_and_help_lists_the_known(talk: Conversation) -> None:
    with pytest.raises(ValueError, match=r"^/nope: unknown command; /help lists them$"):
        talk.command("/nope now")
    for name in ("help", "reset", "system", "save", "model"):
        assert f"/{name}" in talk.command("/help")


def test_a_model_is_chosen_only_where_there_is_no_choice() -> None:
    assert choose_model(["a"]) == "a"
    with pytest.raises(ValueError, match="choose one of a, b"):
        choose_model(["a", "b"])
    with pytest.raises(ValueError, match="no model of this server chats"):
        choose_model([])
