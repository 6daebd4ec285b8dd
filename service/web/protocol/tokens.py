"""The bodies of POST /tokenize and /detokenize."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from service.web.complaints import absent, complaint
from service.web.conversation import ChatMessage
from service.web.fields import Tokens, exactly_one
from service.web.protocol.base import RequestBody


class TokenizeRequest(RequestBody):
    """POST /tokenize: a prompt, or llama.cpp's `content`, or a conversation."""

    model_config = ConfigDict(json_schema_extra=exactly_one("prompt", "content", "messages"))

    prompt: str | None = None
    """A text; text of control tokens is read as those tokens."""
    content: str | None = None
    """Another spelling of `prompt`."""
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    """A conversation, as the model's chat template writes it."""
    add_generation_prompt: bool = True
    """End a conversation with the words that open an answer."""
    add_special_tokens: bool = True
    """Begin a text with the token that the model expects there, if it has one."""
    return_token_strs: bool = False
    """Add the tokens as strings."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("prompt", "content", "messages") if getattr(self, name) is not None]
        if not given:
            raise absent(param="prompt")
        if len(given) > 1:
            message = f"'{given[0]}' and '{{param}}' exclude each other."
            raise complaint("invalid_value", message, param=given[1])
        return self


class DetokenizeRequest(RequestBody):
    """POST /detokenize."""

    tokens: Tokens
    """Token ids."""
