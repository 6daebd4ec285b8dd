"""One turn of a conversation as clients send it: a role and a content that may come as text or as parts of text."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import PlainValidator, WithJsonSchema, model_validator

from service.web.body import parse_object
from service.web.complaints import absent, complaint, empty_array, wrong_type
from service.web.errors import MalformedJson, quote
from service.web.fields import Body, text_of

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

_TEXT_PARTS = ("text", "input_text", "output_text")

_PARTS: tuple[dict[str, Any], ...] = (
    {"properties": {"type": {"enum": _TEXT_PARTS}, "text": {"type": "string"}}, "required": ["type", "text"]},
    {"properties": {"type": {"const": "refusal"}, "refusal": {"type": "string"}}, "required": ["type", "refusal"]},
)
_CONTENT: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "object"} | part for part in _PARTS]}, "minItems": 1},
        {"type": "null"},
    ]
}


def _arguments(value: object) -> object:
    """Return what templates expect: an object, or the text of a call that was cut short."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise wrong_type("a string", value)
    try:
        return parse_object(value.encode()) if value else {}
    except MalformedJson:
        return value


class CalledFunction(Body):
    """What was called, and with what."""

    name: str
    """Of the function."""
    arguments: Annotated[Any, PlainValidator(_arguments), WithJsonSchema({"type": ["string", "object"]})]
    """A JSON object, as text or as it is."""


class EarlierCall(Body):
    """One call in an answer."""

    id: str | None = None
    """What the tool's answer refers to."""
    type: Literal["function"] = "function"
    """Always `function`."""
    function: CalledFunction
    """The function and its arguments."""


class ChatMessage(Body):
    """One turn; its content is plain text by now."""

    nullable: ClassVar[frozenset[str]] = frozenset({"content"})

    role: Role
    """Who speaks; `developer` is `system`."""
    content: Annotated[Any, WithJsonSchema(_CONTENT)] = None
    """What is said: text, or parts of text, which are joined. Only an assistant with `tool_calls` may say nothing."""
    name: str | None = None
    """Who exactly, where the chat template shows it."""
    tool_calls: list[EarlierCall] | None = None
    """Functions the assistant called."""
    tool_call_id: str | None = None
    """Which call a tool answers."""

    @model_validator(mode="before")
    @classmethod
    def _join_content(cls, value: Any) -> Any:
        """Concatenate text parts. Runs first, so that the field holds a string however it was sent."""
        if not isinstance(value, dict) or "content" not in value or not isinstance(value.get("role"), str):
            return value
        content = value["content"]
        if isinstance(content, list):
            return {**value, "content": _join(content, value["role"])}
        if content is not None and not isinstance(content, str):
            raise wrong_type("a string or an array", content, at=".content")
        return value

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            if "content" in self.model_fields_set:
                raise wrong_type("a string or an array", None, at=".content")
            raise absent(".content")
        return self

    def for_template(self) -> dict[str, Any]:
        """Return what the chat template sees."""
        fields = self.model_dump(include=set(ChatMessage.model_fields), exclude_none=True)
        return fields | {"content": self.content or ""}


def _join(parts: Sequence[object], role: str) -> str:
    """Concatenate the text parts of a message."""
    if not parts:
        raise empty_array(".content")
    return "".join(_part_text(part, role, at=f".content[{i}]") for i, part in enumerate(parts))


def _part_text(part: object, role: str, *, at: str) -> str:
    if not isinstance(part, Mapping):
        raise wrong_type("an object", part, at=at)
    kind = part.get("type")
    if kind is None:
        raise absent(f"{at}.type")
    if not isinstance(kind, str):
        raise wrong_type("a string", kind, at=f"{at}.type")
    field = "refusal" if kind == "refusal" and role == "assistant" else "text"
    if field == "text" and kind not in _TEXT_PARTS:
        noun = kind.removeprefix("input_").partition("_")[0].capitalize()
        message = f"Invalid value: {quote(kind)}. {quote(noun)[1:-1]} input is not supported by this model."
        raise complaint("invalid_value", message, at=f"{at}.type")
    if part.get(field) is None:
        raise absent(f"{at}.{field}")
    return text_of(part[field], at=f"{at}.{field}")
