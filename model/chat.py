"""Conversations to token ids: the one place where a chat template is rendered, for serving and for training alike.

Text of a message can never become a control token. Before rendering, whatever in it could be read as a special token
(or as a part of one) gets one character replaced by a private-use stand-in; the rendered text is cut at the special
tokens that the template itself wrote; the pieces get their characters back and are encoded as plain text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model.tokenizer import Tokenizer

END_OF_TEXT, PAD, END_OF_TURN = "<|endoftext|>", "<|pad|>", "<|end|>"

SPECIAL_TOKENS = (END_OF_TEXT, PAD, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN)
"""What our own vocabularies carry, in id order."""

DEFAULT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role in ("system", "developer") -%}
        {{- "<|system|>" -}}
    {%- elif message.role in ("user", "tool", "function") -%}
        {{- "<|user|>" -}}
    {%- elif message.role == "assistant" -%}
        {{- "<|assistant|>" -}}
    {%- else -%}
        {{- raise_exception("This model knows no messages of the role " + message.role) -}}
    {%- endif -%}
    {{- message.content -}}
    {{- message.tool_calls | map(attribute="function") | list | tojson if message.tool_calls -}}
    {{- "<|end|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|assistant|>" -}}
{%- endif -%}
"""
"""What a function returned is told as by a user; calls are written as `model.grammar` makes models write them."""

Message = Mapping[str, Any]


class ChatTemplateError(ValueError):
    """The template is missing or broken, or refuses this conversation."""


class ChatTemplate:
    """A compiled template bound to the tokenizer whose special tokens it writes."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Compile `source`.

        Raises:
            ChatTemplateError: the source is not valid Jinja.
        """
        self.source = source
        self._tokenizer = tokenizer
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template cannot be compiled: {error}") from error

    @classmethod
    def from_directory(cls, path: str | Path, tokenizer: Tokenizer) -> "ChatTemplate":
        """Load `chat_template.jinja`, or the `chat_template` entry that older checkpoints keep with the tokenizer.

        Raises:
            ChatTemplateError: there is none, or it is broken.
        """
        file = Path(path) / "chat_template.jinja"
        if file.exists():
            return cls(file.read_text("utf-8"), tokenizer)
        entry = json.loads(tokenizer.files()["tokenizer_config.json"]).get("chat_template")
        if not isinstance(entry, str):
            raise ChatTemplateError(f"{file}: not found; only a checkpoint with a chat template can chat")
        return cls(entry, tokenizer)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> list[int]:
        """Return the ids of a conversation whose contents are strings.

        Args:
            add_generation_prompt: End with the words that open the assistant's answer.
            continue_final_message: End inside the last message, so that the model goes on with it.
            kwargs: Further variables for the template.

        Raises:
            ChatTemplateError: the template refuses the conversation, with its reason.
        """
        if add_generation_prompt and continue_final_message:
            raise ChatTemplateError("add_generation_prompt and continue_final_message exclude each other")
        disguise = _Disguise(self._tokenizer.special_tokens, avoid=[self.source, messages, kwargs])
        hidden = [_hide_message(message, disguise) for message in messages]
        if continue_final_message:
            _mark_end(hidden, disguise.end_mark)
        variables = disguise.hide_all(kwargs) | {"add_generation_prompt": add_generation_prompt}
        rendered = self._render(hidden, variables)
        if continue_final_message:
            rendered = _cut_at_mark(rendered, disguise.end_mark)
        return self._encode_rendered(rendered, disguise)

    def encode_answer(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt, as `encode` gives them for serving, and those of the answer, the last message.

        The answer ends with the control token that ends it. Prompt and answer are apart even where a token could
        reach over the border between them: a model that is served the prompt cannot give half a token.

        Raises:
            ChatTemplateError: the template refuses the conversation, or writes a prompt otherwise once it is answered.
        """
        disguise = _Disguise(self._tokenizer.special_tokens, avoid=[self.source, messages])
        hidden = [_hide_message(message, disguise) for message in messages]
        prompt_text = self._render(hidden[:-1], {"add_generation_prompt": True})
        whole_text = self._render(hidden, {"add_generation_prompt": False})
        prompt, whole = (self._encode_rendered(text, disguise) for text in (prompt_text, whole_text))
        if whole[: len(prompt)] == prompt:
            answer = whole[len(prompt) :]
        elif whole_text.startswith(prompt_text):
            answer = self._encode_rendered(whole_text.removeprefix(prompt_text), disguise, opens_text=False)
        else:
            raise ChatTemplateError(
                f"messages[{len(messages) - 1}]: the chat template writes what comes before an answer otherwise once "
                "it is given, so that what is learned would not be what is asked"
            )
        ends = [at for at, id_ in enumerate(answer) if id_ in self._tokenizer.special_ids]
        return prompt, answer[: ends[-1] + 1] if ends else answer

    def unknown_tokens(self) -> list[str]:
        """Return what looks like a control token in a conversation but is none, and would be torn into pieces."""
        roles = ("system", "user", "assistant", "user")
        for messages in [[{"role": role, "content": "x"} for role in roles[skip:]] for skip in (0, 1)]:
            try:
                rendered = self._render(messages, {"add_generation_prompt": True})
            except ChatTemplateError:  # some know no system messages
                continue
            marks = dict.fromkeys(re.findall(r"<\|[^<>|\s]+\|>", rendered))
            return [mark for mark in marks if mark not in self._tokenizer.special_tokens]
        return []

    def _render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        defaults: dict[str, Any] = {"tools": None, "documents": None} | self._tokenizer.named_tokens
        try:
            return self._template.render({**defaults, **variables, "messages": messages})
        except Exception as error:  # a template is a program that came with the checkpoint: it may raise anything
            raise ChatTemplateError(f"the chat template refuses this conversation: {error}") from error

    def _encode_rendered(self, rendered: str, disguise: "_Disguise", *, opens_text: bool = True) -> list[int]:
        control = self._tokenizer.special_tokens
        pieces = [control[piece] if piece in control else disguise.reveal(piece) for piece in disguise.split(rendered)]
        return self._tokenizer.encode_pieces(pieces, opens_text=opens_text)


class _Disguise:
    """Stand-ins for the characters that could make a user's text look like a special token."""

    def __init__(self, special_tokens: Iterable[str], *, avoid: object) -> None:
        self._tokens = sorted(special_tokens, key=len, reverse=True)
        pattern = "|".join(map(re.escape, self._tokens)) or "(?!)"
        self._split = re.compile(f"({pattern})")
        self._look_ahead = re.compile(f"(?={pattern})")
        self._beginnings = tuple(token[:size] for token in self._tokens for size in range(1, len(token)))
        self._endings = tuple(token[size:] for token in self._tokens for size in range(1, len(token)))
        taken = set(json.dumps(avoid, ensure_ascii=False, default=str))
        self._unused = (chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in taken)
        self.end_mark = next(self._unused)
        self._stand_ins: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """Change one character wherever `text` holds a special token, ends or begins inside one, or lies inside one."""
        return self._replace(text, self._whole_tokens(text) | self._open_ends(text))

    def hide_all(self, value: Any) -> Any:
        """Hide every string inside lists and objects. Keys stay findable: only whole tokens in them are hidden."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Mapping):
            return {self._replace(key, self._whole_tokens(key)): self.hide_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_all(item) for item in value]
        return value

    def reveal(self, text: str) -> str:
        return text.translate({ord(stand_in): character for character, stand_in in self._stand_ins.items()})

    def split(self, rendered: str) -> list[str]:
        return [piece for piece in self._split.split(rendered) if piece]

    def _whole_tokens(self, text: str) -> set[int]:
        return {match.start() for match in self._look_ahead.finditer(text)}

    def _open_ends(self, text: str) -> set[int]:
        """Find where a special token could start and be finished by what follows `text`, or the other way round."""
        bare = text.strip()
        if not (bare.endswith(self._beginnings) or bare.startswith(self._endings) or self._lies_inside(bare)):
            return set()  # nearly always, and much faster than trying each token
        first = len(text) - len(text.lstrip())
        places = set()
        for token in self._tokens:
            sizes = range(1, min(len(token), len(bare) + 1))
            places |= {first + len(bare) - size for size in sizes if bare.endswith(token[:size])}
            if bare and (bare in token or any(bare.startswith(token[-size:]) for size in sizes)):
                places.add(first)
        return places

    def _lies_inside(self, bare: str) -> bool:
        return any(bare in token for token in self._tokens)

    def _replace(self, text: str, places: set[int]) -> str:
        pieces, start = [], 0
        for place in sorted(places):
            pieces += [text[start:place], self._stand_in(text[place])]
            start = place + 1
        return "".join(pieces) + text[start:]

    def _stand_in(self, character: str) -> str:
        if character not in self._stand_ins:
            self._stand_ins[character] = next(self._unused)
        return self._stand_ins[character]


def _hide_message(message: Message, disguise: _Disguise) -> dict[str, Any]:
    """Disguise a message but for its role, which the template compares and may build a control token from."""
    return {key: value if key == "role" else disguise.hide_all(value) for key, value in message.items()}


def _mark_end(messages: list[dict[str, Any]], mark: str) -> None:
    if not messages or not isinstance(messages[-1].get("content"), str):
        raise ChatTemplateError("continue_final_message needs a last message with text")
    messages[-1]["content"] += f"{mark} "  # the space shows whether the template trims contents


def _cut_at_mark(rendered: str, mark: str) -> str:
    before, found, after = rendered.rpartition(mark)
    if not found:
        raise ChatTemplateError("continue_final_message: the template leaves out the end of the last message")
    return before if after.startswith(" ") else before.rstrip()


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that public chat templates are written for (transformers, chat_template_utils)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter, leave <, > and & as they are: this is not HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
