"""What clients get back, as types: for /openapi.json, and for tests, which hold every answer against them.

The answers themselves are built elsewhere, as plain dictionaries, where speed counts.
"""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict


class Answer(TypedDict):
    """A JSON object with exactly these fields."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)  # type: ignore[misc]


class ErrorDetails(Answer):
    message: str
    type: Literal["invalid_request_error", "server_error", "requests", "tokens"]
    param: str | None
    """The field of the request that is at fault."""
    code: str | None


class ErrorAnswer(Answer):
    """Every answer that is not a result."""

    error: ErrorDetails


class PromptTokensDetails(Answer):
    cached_tokens: int
    """Prompt tokens that were in the cache already."""


class CompletionTokensDetails(Answer):
    reasoning_tokens: int


class Usage(Answer):
    prompt_tokens: int
    """Each prompt counts once."""
    completion_tokens: int
    """Generated tokens of every choice, those of `best_of` that are not shown too."""
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ReadUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class ClassifyUsage(ReadUsage):
    completion_tokens: int


class PromptLogprob(Answer):
    logprob: float
    rank: int | None
    decoded_token: str


class Choice(Answer):
    """What choices of both endpoints share."""

    index: int
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    stop_reason: int | str | None
    """The stop string or stop token that ended the answer."""
    token_ids: NotRequired[list[int]]
    prompt_token_ids: NotRequired[list[int] | None]


class LegacyLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Choice):
    text: str
    logprobs: LegacyLogprobs | None
    prompt_logprobs: NotRequired[list[dict[str, PromptLogprob] | None]]


class Completion(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    content: list[TokenLogprob]
    refusal: None


class FunctionCall(Answer):
    name: str
    arguments: str


class ToolCall(Answer):
    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(Choice):
    message: Message
    logprobs: ChatLogprobs | None


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default"]
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: NotRequired[list[dict[str, PromptLogprob] | None]]


class ResponseUsage(Answer):
    input_tokens: int
    input_tokens_details: PromptTokensDetails
    output_tokens: int
    output_tokens_details: CompletionTokensDetails
    total_tokens: int


class OutputText(Answer):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class OutputMessage(Answer):
    id: str
    type: Literal["message"]
    status: Literal["completed", "incomplete", "in_progress"]
    role: Literal["assistant"]
    content: list[OutputText]


class ModelResponse(Answer):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    background: bool
    error: dict[str, str] | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: None
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["auto"]
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or their little-endian float32 in base64."""


class Embeddings(Answer):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: ReadUsage


class Score(Answer):
    label: str
    label_index: int
    score: float


class BareScore(Answer):
    score: float
    label: str


Predictions = list[BareScore] | list[list[BareScore]]
"""Of one text, or of several; best first."""


class Classification(Score):
    """The most likely label, and the others."""

    object: Literal["classification"]
    index: int
    probs: list[float]
    """In the order of `labels`."""
    num_classes: int
    scores: list[Score]
    """Best first."""
    logits: NotRequired[list[float]]
    predicted_labels: NotRequired[list[str]]
    """Where labels do not exclude each other: those that are more likely than not."""


class Classifications(Answer):
    id: str
    object: Literal["list"]
    created: int
    model: str
    labels: list[str]
    data: list[Classification]
    usage: ClassifyUsage


class Tokens(Answer):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Text(Answer):
    prompt: str
    content: str
    """The same."""


class TokenizerInfo(Answer):
    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    vocab_size: int
    chat_template: str | None


class ModelCard(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The id, also on the card of an alias."""
    parent: str | None
    """The base of an adapter."""
    max_model_len: int
    capabilities: list[Literal["completions", "chat", "embeddings", "classify"]]
    quantization: str | None
    labels: NotRequired[list[str]]
    problem_type: NotRequired[str]


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelCard]


class ServedVersion(ModelCard):
    """What operators see."""

    version: str
    """Its name among all versions of all models."""
    path: str
    """The directory it comes from."""
    fingerprint: str
    status: Literal["ready", "loading"]
    uses: int
    """How many need it: the list of served models, requests, adapters."""


class ServedVersions(Answer):
    object: Literal["list"]
    data: list[ServedVersion]


class RemovedModel(Answer):
    id: str
    object: Literal["model"]
    deleted: Literal[True]


class Status(Answer):
    status: Literal["ok", "loading", "draining", "engine_stalled"]
