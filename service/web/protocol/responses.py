"""The body of POST /v1/responses: the part of OpenAI's Responses API that needs no memory of earlier requests."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from service.web.constraints import Constrained, text_format_spec
from service.web.conversation import ChatMessage
from service.web.fields import Body, Int, Probability, Refused, RefusedSwitch, Temperature, UnsupportedUnless
from service.web.protocol.base import RequestBody
from service.web.protocol.chat import ChatRequest
from service.web.protocol.sampling import MAX_TOP_LOGPROBS


def _checked_format(value: Mapping[str, Any]) -> Mapping[str, Any]:
    text_format_spec(value)
    return value


class ResponseText(Body):
    """What OpenAI calls `text`."""

    format: Annotated[Mapping[str, Any], AfterValidator(_checked_format)] = Field(
        default_factory=lambda: {"type": "text"}
    )
    """Text, a JSON object, or JSON that satisfies a schema."""
    verbosity: str | None = None
    """Accepted, and changes nothing."""


class _Item(Body):
    type: Literal["message"] = "message"
    """There are no other items."""


class InputMessage(ChatMessage, _Item):
    """One turn of a conversation; what it is is looked at first."""


def _as_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesRequest(RequestBody):
    """POST /v1/responses."""

    without_effect: ClassVar[frozenset[str]] = RequestBody.without_effect | {
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "stream_options",
        "parallel_tool_calls",
    }

    input: Annotated[
        list[InputMessage],
        Field(min_length=1),
        BeforeValidator(_as_items, json_schema_input_type=str | Annotated[list[InputMessage], Field(min_length=1)]),
    ]
    """A question, or a conversation."""
    instructions: str | None = None
    """What the system says before it."""
    max_output_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens to generate; absent: as many as the context leaves."""
    temperature: Temperature = 1.0
    """How random the answer is; 0 always takes the most likely token."""
    top_p: Probability = 1.0
    """Sample from the fewest tokens whose probabilities reach this sum."""
    stream: bool = False
    """Answer in server-sent events while tokens are generated."""
    text: ResponseText = Field(default_factory=ResponseText)
    """The form of the answer."""
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """Report each token's log-probability, and this many alternatives."""
    metadata: Mapping[str, str] = Field(default_factory=dict)
    """Given back with the answer."""
    truncation: Annotated[Any, UnsupportedUnless("disabled")] = None
    """Conversations are never cut."""
    previous_response_id: Refused = None
    """Not supported: nothing is remembered."""
    conversation: Refused = None
    """Not supported: nothing is remembered."""
    background: RefusedSwitch = None
    """Not supported."""
    tools: Annotated[Any, UnsupportedUnless([])] = None
    """Not supported here: chat completions have them."""
    tool_choice: Annotated[Any, UnsupportedUnless("none", "auto")] = None
    """There are no tools to choose from."""
    include: Annotated[Any, UnsupportedUnless([])] = None
    """Not supported."""
    prompt: Refused = None
    """Not supported."""

    @property
    def constrained(self) -> Constrained | None:
        """What the answer must look like."""
        return text_format_spec(self.text.format)

    def as_chat(self) -> ChatRequest:
        """Return the same as a chat request."""
        system = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        return ChatRequest.model_construct(
            model=self.model,
            messages=[*system, *self.input],
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=self.stream,
            logprobs=self.top_logprobs > 0,
            top_logprobs=self.top_logprobs,
            response_format=self.constrained,
        )
