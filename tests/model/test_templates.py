"""The named templates against the published formats, rendered by transformers and spelled out here."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.chat import SPECIAL_TOKENS, ChatTemplate, ChatTemplateError
from model.grammar import call_opening
from model.templates import TEMPLATES, TemplateName, input_heading
from model.tokenizer import Tokenizer
from training.vocabulary import train_bpe

PHI3 = (  # microsoft/Phi-3-mini-4k-instruct, tokenizer_config.json, but for the end of text at the end
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + "
    "'<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TASK = "Write a response that appropriately completes the request."
CONVERSATION = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Quick?"},
    {"role": "assistant", "content": '"A fox", he said.'},
    {"role": "user", "content": "And?"},
]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *(t for named in TEMPLATES.values() for t in named.control_tokens)])
    return train_bpe(["### Response:A fox. Be kind, he said."] * 4, 300, special_tokens=list(tokens))


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("oracle") / "tokenizer.json"
    path.write_bytes(tokenizer.files()["tokenizer.json"])
    return PreTrainedTokenizerFast(tokenizer_file=str(path), **tokenizer.named_tokens)


def render(tokenizer: Tokenizer, name: TemplateName, messages: list[dict[str, Any]], **options: Any) -> str:
    return tokenizer.decode(ChatTemplate(TEMPLATES[name].source, tokenizer).encode(messages, **options))


@pytest.mark.parametrize(("name", "published"), [("phi3", PHI3), ("chatml", CHATML)])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_the_marked_templates_are_the_published_ones(
    tokenizer: Tokenizer, oracle: Any, name: TemplateName, published: str, add_generation_prompt: bool
) -> None:
    for length in range(1, 5):
        messages = CONVERSATION[:length]
        expected = oracle.apply_chat_template(
            messages,
            chat_template=published,
            tokenize=True,
            return_dict=False,
            add_generation_prompt=add_generation_prompt,
        )
        chat = ChatTemplate(TEMPLATES[name].source, tokenizer)
        assert chat.encode(messages, add_generation_prompt=add_generation_prompt) == list(expected)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_transformers_renders_a_stored_template_to_the_same_ids(
    tokenizer: Tokenizer, oracle: Any, name: TemplateName
) -> None:
    source = TEMPLATES[name].source
    expected = oracle.apply_chat_template(
        CONVERSATION, chat_template=source, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert ChatTemplate(source, tokenizer).encode(CONVERSATION) == list(expected)


def test_alpaca_s_prompts_are_stanford_s(tokenizer: Tokenizer) -> None:
    heading = TEMPLATES["alpaca"].input_heading
    plain = [{"role": "user", "content": "Name it."}]
    assert render(tokenizer, "alpaca", plain) == (
        f"Below is an instruction that describes a task. {TASK}\n\n### Instruction:\nName it.\n\n### Response:"
    )
    given = [{"role": "user", "content": f"Name it.{heading}A red animal."}]
    assert render(tokenizer, "alpaca", given) == (
        f"Below is an instruction that describes a task, paired with an input that provides further context. {TASK}"
        "\n\n### Instruction:\nName it.\n\n### Input:\nA red animal.\n\n### Response:"
    )


def test_alpaca_answers_end_the_text_and_may_be_followed_by_further_turns(tokenizer: Tokenizer) -> None:
    assert render(tokenizer, "alpaca", CONVERSATION) == (
        f'Be kind.\n\n### Instruction:\nQuick?\n\n### Response:"A fox", he said.{END}'
        "\n\n### Instruction:\nAnd?\n\n### Response:"
    )
    with pytest.raises(ChatTemplateError, match="system message only first"):
        render(tokenizer, "alpaca", [CONVERSATION[1], CONVERSATION[0]])


@pytest.mark.parametrize("name", ["groundup", "phi3", "chatml"])
def test_developers_are_systems_and_other_roles_are_refused(tokenizer: Tokenizer, name: TemplateName) -> None:
    developer = [{"role": "developer", "content": "Be kind."}]
    assert render(tokenizer, name, developer) == render(tokenizer, name, CONVERSATION[:1])
    with pytest.raises(ChatTemplateError, match="no messages of the role narrator"):
        render(tokenizer, name, [{"role": "narrator", "content": "42"}])


CALLED = [
    {"role": "user", "content": "Is it raining?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "rain", "arguments": {"in": "K\u00f6ln"}}}],
    },
    {"role": "tool", "content": "Yes."},
]
CALLS = '[{"name": "rain", "arguments": {"in": "K\u00f6ln"}}]'


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_calls_are_what_the_assistant_says_and_their_answers_what_the_user_says(
    tokenizer: Tokenizer, oracle: Any, name: TemplateName
) -> None:
    told = [CALLED[0], {"role": "assistant", "content": CALLS}, {"role": "user", "content": "Yes."}]
    assert render(tokenizer, name, CALLED) == render(tokenizer, name, told)
    assert render(tokenizer, name, [*CALLED[:2], {"role": "function", "content": "Yes."}]) == render(
        tokenizer, name, told
    )
    theirs = oracle.apply_chat_template(
        CALLED, chat_template=TEMPLATES[name].source, tokenize=False, add_generation_prompt=True
    )
    assert theirs == render(tokenizer, name, told)


def test_calls_are_written_as_models_are_made_to_write_them() -> None:
    assert f'[{call_opening("rain")}{{"in": "K\u00f6ln"}}}}]' == CALLS


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_an_answer_follows_the_served_prompt_and_ends_with_the_end_token(
    tokenizer: Tokenizer, name: TemplateName
) -> None:
    chat = ChatTemplate(TEMPLATES[name].source, tokenizer)
    prompt, answer = chat.encode_answer(CONVERSATION[:3])
    assert prompt == chat.encode(CONVERSATION[:2])
    assert tokenizer.decode(answer) == f'"A fox", he said.{TEMPLATES[name].end_token or END}'


def test_an_answer_is_apart_from_its_prompt_where_a_token_would_reach_over_the_border() -> None:
    merging = train_bpe(['Response:"A fox" Response:"A dog"'] * 9, 320)
    chat = ChatTemplate(TEMPLATES["alpaca"].source, merging)
    assert merging.encode(':"')[0] != merging.encode(":")[0]  # one token
    prompt, answer = chat.encode_answer(CONVERSATION[:3])
    assert prompt == chat.encode(CONVERSATION[:2])
    assert answer[0] == merging.encode('"')[0]


@pytest.mark.parametrize("name", ["groundup", "phi3", "chatml"])
def test_control_tokens_that_a_vocabulary_lacks_are_named(name: TemplateName) -> None:
    bare = train_bpe(["Be kind."], 300, special_tokens=[END, "<|pad|>"])
    chat = ChatTemplate(TEMPLATES[name].source, bare)
    assert set(chat.unknown_tokens()) == set(TEMPLATES[name].control_tokens)
    more = bare.with_control_tokens(TEMPLATES[name].control_tokens)
    assert ChatTemplate(TEMPLATES[name].source, more).unknown_tokens() == []
    assert ChatTemplate(TEMPLATES["alpaca"].source, bare).unknown_tokens() == []


def test_a_template_is_known_by_its_source() -> None:
    assert input_heading(TEMPLATES["alpaca"].source) == "\n\n### Input:\n"
    assert input_heading("{{ messages }}") == "\n\n"


def test_added_control_tokens_have_the_next_ids_in_transformers_too(tmp_path: Path) -> None:
    bare = train_bpe(["Be kind."], 300, special_tokens=[END, "<|pad|>"])
    more = bare.with_control_tokens(["<|user|>", "<|pad|>", "<|user|>", "<|end|>"])
    assert more.special_tokens == {**bare.special_tokens, "<|user|>": bare.vocab_size, "<|end|>": bare.vocab_size + 1}
    assert (more.eos_id, more.pad_id) == (bare.eos_id, bare.pad_id)
    for file, content in more.files().items():
        (tmp_path / file).write_bytes(content)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.convert_tokens_to_ids(["<|user|>", "<|end|>"]) == [bare.vocab_size, bare.vocab_size + 1]
    text = "Be<|user|> kind<|end|>"
    assert theirs.encode(text) == more.encode(text, parse_special=True)


def test_older_tokenizer_configs_name_added_control_tokens_too() -> None:
    bare = train_bpe(["Be kind."], 300, special_tokens=[END, "<|pad|>"])
    config = json.loads(bare.files()["tokenizer_config.json"]) | {"added_tokens_decoder": {"0": {"content": END}}}
    more = Tokenizer(bare.files()["tokenizer.json"].decode(), config).with_control_tokens(["<|user|>"])
    known = json.loads(more.files()["tokenizer_config.json"])["added_tokens_decoder"]
    assert known[str(bare.vocab_size)]["content"] == "<|user|>"
    assert known[str(bare.vocab_size)]["special"] is True
