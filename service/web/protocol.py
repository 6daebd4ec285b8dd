"""What clients may send: one frozen model for each request body, its fields in the order of the API's tables.

Only shapes, ranges and rules between fields. What needs a model, a tokenizer or a queue is checked later, elsewhere.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.web.complaints import absent, complaint, empty_array, unsupported
from service.web.conversation import ChatMessage
from service.web.fields import (
    Body,
    Inputs,
    Int,
    LogitBias,
    Penalty,
    Probability,
    Prompts,
    Refused,
    RefusedList,
    RefusedNumber,
    RefusedSwitch,
    RefusedText,
    ResponseFormat,
    Seed,
    Side,
    Stops,
    StopTokenIds,
    Temperature,
    Tokens,
    Truncation,
    at_most_setting,
    unsupported_unless,
)

MAX_TOP_LOGPROBS = 20


class RequestBody(Body):
    """What every endpoint shares."""

    nullable: ClassVar[frozenset[str]] = frozenset()
    """Fields whose null is a value of its own."""
    without_effect: ClassVar[frozenset[str]] = frozenset({"user"})
    """Fields of the public API that are accepted and change nothing here."""

    model: str | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Sampling(Body):
    """OpenAI's fields that completions and chat share."""

    temperature: Temperature = 1.0
    top_p: Probability = 1.0
    n: Annotated[Int, Field(ge=1), at_most_setting("max_n")] = 1
    best_of: Annotated[Int, Field(ge=0, le=20)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stops = ()
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: LogitBias = ()
    seed: Seed | None = None
    response_format: ResponseFormat = "text"


class _Extensions(Body):
    """Fields that other servers added and clients rely on."""

    top_k: Annotated[Int, Field(ge=-1)] = 0
    min_p: Probability = 0.0
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    min_tokens: Annotated[Int, Field(ge=0)] = 0
    stop_token_ids: StopTokenIds = Field(default_factory=list)
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    bad_words: RefusedList = None
    allowed_token_ids: RefusedList = None
    prompt_logprobs: Refused = None
    truncate_prompt_tokens: Truncation | None = None
    truncation_side: Side = "left"
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    add_special_tokens: bool = True
    priority: RefusedNumber = None
    cache_salt: str | None = None  # keeps cached prompts apart; ours are never shared
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")] | None = None
    use_beam_search: RefusedSwitch = None
    length_penalty: Annotated[Any, unsupported_unless(1, 1.0)] = None
    prompt_embeds: Refused = None
    structured_outputs: Refused = None
    guided_json: Refused = None
    guided_regex: Refused = None
    guided_choice: Refused = None
    guided_grammar: Refused = None
    guided_decoding_backend: Annotated[Any, unsupported_unless("auto")] = None
    structural_tag: Refused = None
    regex: Refused = None
    json_schema: Refused = None
    grammar: Refused = None
    ebnf: Refused = None


class GenerationRequest(_Extensions, _Sampling, RequestBody):
    """Text generation, in whichever shape. Bases are listed last first: that is the order of their fields."""

    def _check_together(self) -> None:
        if self.best_of is not None and max(self.best_of, 1) < self.n:
            raise complaint("invalid_value", "Invalid '{param}': it must not be smaller than 'n'.", param="best_of")
        if self.best_of is not None and max(self.best_of, 1) > self.n:
            raise unsupported("best_of")
        if self.stream_options is not None and not self.stream:
            message = "The '{param}' parameter is only allowed when 'stream' is enabled."
            raise complaint("invalid_value", message, param="stream_options")
        limit = self.token_limit
        if limit is not None and self.min_tokens > limit:
            message = f"Invalid '{{param}}': more than the token limit of {limit}."
            raise complaint("invalid_value", message, param="min_tokens")

    @property
    @abstractmethod
    def token_limit(self) -> int | None:
        """Most tokens to generate; None: as many as the context leaves."""

    @property
    @abstractmethod
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities at all."""

    @property
    @abstractmethod
    def continues_text(self) -> bool:
        """Whether the answer goes on in the text of the prompt, where it may begin with a space."""

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def has_running_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats is True


class _CompletionHead(RequestBody):
    prompt: Prompts
    max_tokens: Annotated[Int, Field(ge=0)] = 16
    logprobs: Annotated[Int, Field(ge=0), at_most_setting("max_logprobs")] | None = None
    echo: bool = False
    suffix: RefusedText = None
    parse_special: bool = True


class CompletionRequest(GenerationRequest, _CompletionHead):
    """POST /v1/completions."""

    nullable: ClassVar[frozenset[str]] = frozenset({"prompt"})

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_together()
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


class _ChatHead(RequestBody):
    messages: list[ChatMessage]
    max_completion_tokens: Annotated[Int, Field(ge=1)] | None = None
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: Refused = None
    function_call: Annotated[Any, unsupported_unless("none")] = None
    modalities: Annotated[Any, unsupported_unless(["text"])] = None
    audio: Refused = None
    web_search_options: Refused = None
    moderation: Refused = None
    chat_template_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template: Refused = None
    echo: bool = False
    documents: Refused = None
    mm_processor_kwargs: Refused = None

    @field_validator("messages")
    @classmethod
    def _check_messages(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if not messages:
            raise empty_array()
        return messages

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
    def _check(self) -> Self:
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
        self._check_together()
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


class ClassifyRequest(RequestBody):
    """POST /classify."""

    input: Inputs | None = None
    inputs: Inputs | None = None
    top_k: Annotated[Int, Field(ge=1)] | None = None
    raw_scores: bool = False
    use_activation: bool = True
    truncate: bool = False
    truncation_side: Side = "right"
    truncate_prompt_tokens: Truncation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.input is not None and self.inputs is not None:
            message = "'input' and '{param}' are two spellings of one field; send one of them."
            raise complaint("invalid_value", message, param="inputs")
        if self.input is None and self.inputs is None:
            raise absent(param="input")
        return self


class TokenizeRequest(RequestBody):
    """POST /tokenize: a prompt, or llama.cpp's `content`, or a conversation."""

    prompt: str | None = None
    content: str | None = None
    messages: list[ChatMessage] | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("prompt", "content", "messages") if getattr(self, name) is not None]
        if not given:
            raise absent(param="prompt")
        if len(given) > 1:
            message = f"'{given[0]}' and '{{param}}' exclude each other."
            raise complaint("invalid_value", message, param=given[1])
        if self.messages is not None and not self.messages:
            raise empty_array(param="messages")
        return self


class DetokenizeRequest(RequestBody):
    """POST /detokenize."""

    tokens: Tokens
