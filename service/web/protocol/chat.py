"""The body of POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.web.complaints import complaint, empty_array
from service.web.conversation import ChatMessage
from service.web.fields import Int, Refused, UnsupportedUnless
from service.web.protocol.base import RequestBody
from service.web.protocol.generation import GenerationRequest
from service.web.protocol.sampling import MAX_TOP_LOGPROBS


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
    tools: list[dict[str, Any]] | None = None
    """Functions the model may call."""
    tool_choice: Any = None
    """Which of them it must call."""
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
    """Continue the last message instead of answering it."""
    chat_template: Refused = None
    """Not supported: templates come with models."""
    echo: bool = False
    """Put the continued message in front of the answer; only with `continue_final_message`."""
    documents: Refused = None
    """Not supported."""
    mm_processor_kwargs: Refused = None
    """Not supported."""

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        if tools is not None and not tools:
            raise empty_array()
        for i, tool in enumerate(tools or ()):
            if tool.get("type") != "function":
                message = "Invalid value: only tools of type 'function' exist. Supported values are: 'function'."
                raise complaint("invalid_value", message, at=f"[{i}].type")
        return tools


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
        "parallel_tool_calls",
    }

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if self.top_logprobs > 0 and not self.logprobs:
            message = "The '{param}' parameter is only allowed when 'logprobs' is enabled."
            raise complaint("invalid_value", message, param="top_logprobs")
        _check_tool_choice(self.tools, self.tool_choice)
        if self.add_generation_prompt and self.continue_final_message:
            message = "'add_generation_prompt' and '{param}' exclude each other."
            raise complaint("invalid_value", message, param="continue_final_message")
        if self.echo and not self.continue_final_message:
            message = "The '{param}' parameter is only allowed when 'continue_final_message' is enabled."
            raise complaint("invalid_value", message, param="echo")
        self._check_together(info)
        return self

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


def _check_tool_choice(tools: list[dict[str, Any]] | None, choice: Any) -> None:
    """Tools may be sent along when they must not be used; everything else needs a model that can call them."""
    if tools is None and choice not in (None, "none", "auto"):
        message = "Invalid value for '{param}': it is only allowed when 'tools' are specified."
        raise complaint("invalid_value", message, param="tool_choice")
    if tools is None or choice == "none":
        return
    if choice in (None, "auto"):
        raise _no_tools("tools")
    if choice != "required" and not isinstance(choice, dict):
        message = "Invalid value for '{param}'. Supported values are: 'none', 'auto', 'required'."
        raise complaint("invalid_value", message, param="tool_choice")
    raise _no_tools("tool_choice")


def _no_tools(param: str) -> PydanticCustomError:
    message = "Unsupported parameter: '{param}'. Tool calling is not supported by this model."
    return complaint("unsupported_parameter", message, param=param)
