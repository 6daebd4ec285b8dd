"""Chat templates by name: what each writes around messages, the control tokens it needs, and how its answers end.

They are sources for `model.chat`, which renders them for serving and training alike. `alpaca` writes plain words and
needs no control token but the end of a text; the others mark each turn with tokens of their own.
"""

from dataclasses import dataclass
from typing import Literal

from model.chat import DEFAULT_TEMPLATE, END_OF_TURN

TemplateName = Literal["groundup", "alpaca", "phi3", "chatml"]


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """A published way to write a conversation."""

    source: str
    """Jinja, as `chat_template.jinja` keeps it."""
    control_tokens: tuple[str, ...]
    """What the vocabulary must hold as control tokens, so that users cannot type them."""
    end_token: str | None
    """Ends an answer; None: whatever ends a text in the vocabulary."""
    input_heading: str = "\n\n"
    """What stands between an instruction and its input, in the one message that both become."""


_TURNS = """\
{%%- for message in messages -%%}
    {%%- if message.role == "developer" -%%}
        {%%- set role = "system" -%%}
    {%%- elif message.role in ("tool", "function") -%%}
        {%%- set role = "user" -%%}
    {%%- elif message.role in ("system", "user", "assistant") -%%}
        {%%- set role = message.role -%%}
    {%%- else -%%}
        {{- raise_exception("This model knows no messages of the role " + message.role) -}}
    {%%- endif -%%}
    {{- "%(before)s" + role + "%(after)s\\n" + message.content -}}
    {{- message.tool_calls | map(attribute="function") | list | tojson if message.tool_calls -}}
    {{- "%(end)s\\n" -}}
{%%- endfor -%%}
{%%- if add_generation_prompt -%%}
    {{- "%(before)sassistant%(after)s\\n" -}}
{%%- endif -%%}
"""
"""One line that names the role, the message, and its end; functions as in our own template."""

ALPACA = """\
{%- set turns = messages -%}
{%- if messages and messages[0].role in ("system", "developer") -%}
    {%- set turns = messages[1:] -%}
    {{- messages[0].content -}}
{%- else -%}
    {{- "Below is an instruction that describes a task" -}}
    {%- if messages and "\\n\\n### Input:\\n" in messages[0].content -%}
        {{- ", paired with an input that provides further context" -}}
    {%- endif -%}
    {{- ". Write a response that appropriately completes the request." -}}
{%- endif -%}
{%- for message in turns -%}
    {%- if message.role in ("user", "tool", "function") -%}
        {{- "\\n\\n### Instruction:\\n" + message.content -}}
    {%- elif message.role == "assistant" -%}
        {{- "\\n\\n### Response:" + message.content -}}
        {{- message.tool_calls | map(attribute="function") | list | tojson if message.tool_calls -}}
        {{- eos_token -}}
    {%- else -%}
        {{- raise_exception("Alpaca's template takes a system message only first, and no role " + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "\\n\\n### Response:" -}}
{%- endif -%}
"""
"""The two prompts of tatsu-lab/stanford_alpaca (PROMPT_DICT in train.py), word for word: which one is taken depends on
whether the message has an input under its heading. The answer follows its heading at once. A system message takes the
place of the opening words; further turns, which Alpaca does not have, follow in the same form, and so do functions."""

TEMPLATES: dict[TemplateName, NamedTemplate] = {
    "groundup": NamedTemplate(
        DEFAULT_TEMPLATE, ("<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN), end_token=END_OF_TURN
    ),
    "alpaca": NamedTemplate(ALPACA, (), end_token=None, input_heading="\n\n### Input:\n"),
    # microsoft/Phi-3-mini-4k-instruct, tokenizer_config.json; without the end of text after a whole conversation
    "phi3": NamedTemplate(
        _TURNS % {"before": "<|", "after": "|>", "end": "<|end|>"},
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        end_token="<|end|>",
        input_heading="\n",
    ),
    # openai/openai-python v0.27, chatml.md; as Qwen writes it, but without a system message of its own
    "chatml": NamedTemplate(
        _TURNS % {"before": "<|im_start|>", "after": "", "end": "<|im_end|>"},
        ("<|im_start|>", "<|im_end|>"),
        end_token="<|im_end|>",
    ),
}


def input_heading(source: str) -> str:
    """Return what stands between an instruction and its input in a template's messages; a blank line in others."""
    return next((named.input_heading for named in TEMPLATES.values() if named.source == source), "\n\n")
