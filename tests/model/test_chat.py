"""The chat renderer against transformers (the oracle), and against users who type control tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.chat import DEFAULT_TEMPLATE, SPECIAL_TOKENS, ChatTemplate, ChatTemplateError
from model.tokenizer import Tokenizer
from training.vocabulary import train_bpe

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GLUED = "{% for message in messages %}{{ message.content }}{% endfor %}<|{{ messages[0].content }}|>"
"""Nobody's template: it puts contents side by side and even between the halves of a special token."""

TEMPLATES = {"ours": DEFAULT_TEMPLATE, "chatml": CHATML, "llama3": LLAMA3, "glued": GLUED}
CONTROL_TOKENS = (
    *SPECIAL_TOKENS,
    *("<|im_start|>", "<|im_end|>", "<|bos|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
CONVERSATION = [
    {"role": "system", "content": "  You are kind.\n"},
    {"role": "user", "content": "Na\u00efve < 3 | 4 > 2? user <b>end</b>"},
    {"role": "assistant", "content": "Yes: id, {{ 7 * 7 }} \U0001f600 |"},
    {"role": "user", "content": "\nThanks "},
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A vocabulary that holds the control tokens of every template here."""
    trained = train_bpe(["You are kind. Thanks for the answer, user."] * 4, 300, special_tokens=CONTROL_TOKENS)
    config = json.loads(trained.files()["tokenizer_config.json"]) | {"bos_token": "<|bos|>"}
    return Tokenizer(trained.files()["tokenizer.json"].decode(), config)


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("oracle") / "tokenizer.json"
    path.write_bytes(tokenizer.files()["tokenizer.json"])
    named = tokenizer.named_tokens
    return PreTrainedTokenizerFast(tokenizer_file=str(path), **named)


def apply_oracle(oracle: Any, template: str, messages: list[dict[str, str]], **options: Any) -> list[int]:
    return list(
        oracle.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=False, **options)
    )


@pytest.mark.parametrize("name", ["ours", "chatml", "llama3"])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_ids_equal_transformers(tokenizer: Tokenizer, oracle: Any, name: str, add_generation_prompt: bool) -> None:
    chat = ChatTemplate(TEMPLATES[name], tokenizer)
    for length in range(1, len(CONVERSATION) + 1):
        messages = CONVERSATION[:length]
        expected = apply_oracle(oracle, TEMPLATES[name], messages, add_generation_prompt=add_generation_prompt)
        assert chat.encode(messages, add_generation_prompt=add_generation_prompt) == expected


@pytest.mark.parametrize("name", ["ours", "chatml", "llama3"])
@pytest.mark.parametrize("content", ["Sure, the", "Sure, ends with space ", "two\n\n", "\n x"])
def test_a_continued_message_equals_transformers(tokenizer: Tokenizer, oracle: Any, name: str, content: str) -> None:
    messages = [*CONVERSATION, {"role": "assistant", "content": content}]
    expected = apply_oracle(oracle, TEMPLATES[name], messages, continue_final_message=True)
    chat = ChatTemplate(TEMPLATES[name], tokenizer)
    assert chat.encode(messages, add_generation_prompt=False, continue_final_message=True) == expected


FRAGMENTS = st.sampled_from(
    [*CONTROL_TOKENS, "<|", "|>", "<", ">", "<|e", "nd|>", "end", "user", "use", "r", " ", "\n", "a", "\U000f0000"]
)
CONTENTS = st.lists(FRAGMENTS, max_size=8).map("".join) | st.text()


@pytest.mark.parametrize("name", list(TEMPLATES))
@given(contents=st.lists(CONTENTS, min_size=1, max_size=4))
def test_no_control_token_ever_comes_out_of_content(tokenizer: Tokenizer, name: str, contents: list[str]) -> None:
    chat = ChatTemplate(TEMPLATES[name], tokenizer)

    def control_ids(texts: list[str]) -> list[int]:
        messages = [{"role": "user", "content": text} for text in texts]
        return [id_ for id_ in chat.encode(messages) if id_ in tokenizer.special_ids]

    assert control_ids(contents) == control_ids(["x"] * len(contents))


@given(contents=st.lists(CONTENTS, min_size=1, max_size=4))
def test_content_is_kept_character_for_character(tokenizer: Tokenizer, contents: list[str]) -> None:
    chat = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    messages = [{"role": "user", "content": text} for text in contents]
    expected = "".join(f"<|user|>{text}<|end|>" for text in contents)
    assert tokenizer.decode(chat.encode(messages, add_generation_prompt=False)) == expected


def test_names_tools_and_template_arguments_are_text_too(tokenizer: Tokenizer) -> None:
    source = "{{ messages[0].name }}{{ tools | tojson }}{{ style }}{{ messages[0].calls[0].id }}"
    message = {"role": "user", "content": "", "name": "<|end|>", "calls": [{"id": "<|user|>"}]}
    chat = ChatTemplate(source, tokenizer)
    ids = chat.encode([message], tools=[{"<|pad|>": "<|pad|>"}], style="<|end|>")
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == '<|end|>[{"<|pad|>": "<|pad|>"}]<|end|><|user|>'


@pytest.mark.parametrize("name", ["ours", "chatml", "llama3"])
def test_an_answer_follows_its_served_prompt_and_ends_with_its_end_token(tokenizer: Tokenizer, name: str) -> None:
    messages = [*CONVERSATION, {"role": "assistant", "content": "You are welcome."}]
    chat = ChatTemplate(TEMPLATES[name], tokenizer)
    prompt, answer = chat.encode_answer(messages)
    assert prompt == chat.encode(CONVERSATION)
    end = {"ours": "<|end|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>"}[name]
    assert tokenizer.decode(answer) == f"You are welcome.{end}"


def test_a_template_that_rewrites_what_it_has_asked_gives_no_answers(tokenizer: Tokenizer) -> None:
    chat = ChatTemplate("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", tokenizer)
    with pytest.raises(ChatTemplateError, match=r"messages\[2\]"):
        chat.encode_answer(CONVERSATION[:3])


def test_the_default_template_refuses_other_roles(tokenizer: Tokenizer) -> None:
    chat = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    with pytest.raises(ChatTemplateError, match="no messages of the role narrator"):
        chat.encode([{"role": "narrator", "content": "42"}])
    developer = chat.encode([{"role": "developer", "content": "Be brief."}])
    assert developer == chat.encode([{"role": "system", "content": "Be brief."}])


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ range(10 ** 9) | list }}",
        "{{ missing.attribute }}",
    ],
)
def test_whatever_a_template_does_wrong_is_a_template_error(tokenizer: Tokenizer, source: str) -> None:
    with pytest.raises(ChatTemplateError):
        ChatTemplate(source, tokenizer).encode(CONVERSATION)


def test_a_template_that_does_not_compile_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ChatTemplateError, match="cannot be compiled"):
        ChatTemplate("{% for %}", tokenizer)


def test_templates_have_the_words_that_public_ones_use(tokenizer: Tokenizer) -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
        "{{ strftime_now('%Y') | length }}{{ tools is none }}{{ eos_token }}"
    )
    ids = ChatTemplate(source, tokenizer).encode([{"role": "user", "content": "<&\u00e9"}] * 2)
    assert tokenizer.decode(ids) == '{"role": "user", "content": "<&\u00e9"}4True<|endoftext|>'


def test_continuing_needs_a_message_that_the_template_shows(tokenizer: Tokenizer) -> None:
    chat = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    silent = ChatTemplate("hello", tokenizer)
    with pytest.raises(ChatTemplateError, match="last message"):
        chat.encode([], add_generation_prompt=False, continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="leaves out"):
        silent.encode(CONVERSATION, add_generation_prompt=False, continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="exclude"):
        chat.encode(CONVERSATION, add_generation_prompt=True, continue_final_message=True)


def test_a_template_is_read_from_its_file_or_from_the_tokenizer_config(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ChatTemplateError, match="only a checkpoint with a chat template can chat"):
        ChatTemplate.from_directory(tmp_path, tokenizer)
    config = json.loads(tokenizer.files()["tokenizer_config.json"]) | {"chat_template": CHATML}
    older = Tokenizer(tokenizer.files()["tokenizer.json"].decode(), config)
    assert ChatTemplate.from_directory(tmp_path, older).source == CHATML
    (tmp_path / "chat_template.jinja").write_text(DEFAULT_TEMPLATE)
    assert ChatTemplate.from_directory(tmp_path, older).source == DEFAULT_TEMPLATE
