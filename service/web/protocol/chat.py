"""The body of POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationInfo, model_validator

from service.web.complaints import complaint
from service.web.constraints import Constrained
from service.web.conversation import ChatMessage
from service.web.fields import Int, Refused, UnsupportedUnless
from service.web.protocol.base import RequestBody
from service.web.protocol.generation import GenerationRequest
from service.web.protocol.sampling import MAX_TOP_LOGPROBS
from service.web.tools import ForcedCalls, ToolChoice, Tools, check_tools, forced_calls


class _ChatHead(RequestBody):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The conversation so far."""
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens to generate; absent: as many as the context leaves."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Older name of `max_completion_tokens`, which wins."""
    logprobs: bool = False
    """Report each token's log-probability."""
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """How many alternatives to report with it; only with `logprobs`."""
    tools: Tools | None = None
    """Functions the model may call."""
    tool_choice: ToolChoice | None = None
    """Which of them it must call: one by name, or `required` for any."""
    parallel_tool_calls: bool = True
    """Whether `required` may call several times in one answer."""
    functions: Refused = None
    """Not supported: send `tools`."""
    function_call: Annotated[Any, UnsupportedUnless("none")] = None
    """Not supported: send `tool_choice`."""
    modalities: Annotated[Any, UnsupportedUnless(["text"])] = None
    """Only text is supported."""
    audio: Refused = None
    """Not supported."""
    web_search_options: Refused = None
    """Not supported."""
    moderation: Refused = None
    """Not supported."""
    chat_template_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Variables for the model's chat template."""
    add_generation_prompt: bool | None = None
    """End the prompt with the words that open an answer; absent: unless `continue_final_message`."""
    continue_final_message: bool = False
    """Continue the text of the last message instead of answering it."""
    chat_template: Refused = None
    """Not supported: templates come with models."""
    echo: bool = False
    """Put the continued message in front of the answer; only with `continue_final_message`."""
    documents: Refused = None
    """Not supported."""
    mm_processor_kwargs: Refused = None
    """Not supported."""


class ChatRequest(GenerationRequest, _ChatHead):
    """POST /v1/chat/completions."""

    without_effect: ClassVar[frozenset[str]] = RequestBody.without_effect | {
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "reasoning_effort",
        "verbosity",
        "prediction",
        "add_special_tokens",  # the template writes them
    }

    truncation_side: Annotated[Any, UnsupportedUnless("left")] = None
    """Conversations lose their oldest turns, never their newest."""

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if self.top_logprobs > 0 and not self.logprobs:
            message = "The '{param}' parameter is only allowed when 'logprobs' is enabled."
            raise complaint("invalid_value", message, param="top_logprobs")
        assert info.context is not None, "bodies are validated with the service's settings"
        check_tools(self.tools, self.tool_choice, info.context)
        if self.add_generation_prompt and self.continue_final_message:
            message = "'add_generation_prompt' and '{param}' exclude each other."
            raise complaint("invalid_value", message, param="continue_final_message")
        if self.continue_final_message and self.messages[-1].tool_calls:
            message = "Invalid '{param}': the last message ends with calls of functions, which have no continuation."
            raise complaint("invalid_value", message, param="continue_final_message")
        if self.echo and not self.continue_final_message:
            message = "The '{param}' parameter is only allowed when 'continue_final_message' is enabled."
            raise complaint("invalid_value", message, param="echo")
        if self.echo and self.forced_calls is not None:
            message = "'{param}' and calls of functions exclude each other: an answer of calls has no text."
            raise complaint("invalid_value", message, param="echo")
        self._check_together(info)
        return self

    @property
    def forced_calls(self) -> ForcedCalls | None:
        """The calls that the answer must consist of."""
        return forced_calls(self.tools, self.tool_choice, parallel=self.parallel_tool_calls)

    @property
    def constrained(self) -> Constrained | None:
        """What the answer must look like; calls have a form of their own."""
        calls = self.forced_calls
        return super().constrained if calls is None else calls.constrained()

    @property
    def ignored(self) -> tuple[str, ...]:
        """Tools that the model may use, and never will."""
        is_free = self.tool_choice in (None, "auto")
        return ("tools",) if self.tools is not None and is_free else ()

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    @property
    def continues_text(self) -> bool:
        return self.continue_final_message

    @property
    def opens_answer(self) -> bool:
        """Whether the template ends with the words that open the assistant's turn."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt
