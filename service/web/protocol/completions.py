"""The body of POST /v1/completions."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationInfo, model_validator

from service.web.fields import AtMostSetting, Int, Prompts, RefusedText
from service.web.protocol.base import RequestBody
from service.web.protocol.generation import GenerationRequest


class _CompletionHead(RequestBody):
    prompt: Prompts
    """What to continue: a text, several, or their token ids; null is the empty text."""
    max_tokens: Annotated[Int, Field(ge=0)] = 16
    """Most tokens to generate; 0 scores the prompt only."""
    logprobs: Annotated[Int, Field(ge=0), AtMostSetting("max_logprobs")] | None = None
    """Report each token's log-probability, and this many alternatives."""
    echo: bool = False
    """Put the prompt in front of the answer."""
    suffix: RefusedText = None
    """Not supported."""
    parse_special: bool = True
    """Read the text of control tokens in a prompt as those tokens."""


class CompletionRequest(GenerationRequest, _CompletionHead):
    """POST /v1/completions."""

    nullable: ClassVar[frozenset[str]] = frozenset({"prompt"})

    add_special_tokens: bool = True
    """Begin a text with the token that the model expects there, if it has one."""

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        self._check_together(info)
        return self

    @property
    def token_limit(self) -> int:
        return self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def continues_text(self) -> bool:
        return True
