"""From what a client wrote to the token ids the model reads: encoding, truncation, and the limit of the context."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from model.chat import ChatTemplateError
from service.settings import ServiceSettings
from service.web.conversation import ChatMessage
from service.web.errors import ContextLengthExceeded, InvalidParameter
from service.web.fields import FIT, TokenIds
from service.web.models import ServedModel
from service.web.protocol.chat import ChatRequest
from service.web.protocol.completions import CompletionRequest

END_OF_TEXT = "<|endoftext|>"

_RESERVED_VARIABLES = ("self", "messages", "add_generation_prompt", "continue_final_message")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues, and how far."""

    token_ids: list[int]
    max_tokens: int
    num_bos: int = 0
    """Tokens at its beginning that the model expects and the client did not write."""


def completion_prompts(request: CompletionRequest, model: ServedModel, settings: ServiceSettings) -> list[Prompt]:
    """Encode the prompts of a completions request.

    Raises:
        InvalidParameter: a token id is not in the vocabulary.
        ContextLengthExceeded: a prompt and the tokens asked for do not fit together.
    """
    bos = model.tokenizer.bos_ids if request.add_special_tokens else ()
    empty_token = None if bos else END_OF_TEXT
    texts = encode_texts(request.prompt, model, "prompt", parse_special=request.parse_special, empty_token=empty_token)
    prompts = []
    for given, ids in zip(request.prompt, texts, strict=True):
        opening = bos if isinstance(given, str) else ()
        if request.truncate_prompt_tokens is not None:
            ids = truncate(ids, _room(request, model, len(opening)), request.truncation_side)
        prompts.append(_fit_completion([*opening, *ids], request.max_tokens, model, settings, len(opening)))
    return prompts


def chat_prompt(request: ChatRequest, model: ServedModel, settings: ServiceSettings) -> Prompt:
    """Render and encode a conversation.

    Raises:
        InvalidParameter: the template refuses the conversation.
        ContextLengthExceeded: the conversation, or it and the answer asked for, do not fit.
    """
    token_ids = _encode_chat(request, model)
    context, max_tokens = model.context, request.token_limit
    if len(token_ids) >= context:
        raise ContextLengthExceeded.of_messages(context, len(token_ids))
    if max_tokens is None or settings.max_tokens_policy == "clamp":
        room = context - len(token_ids)
        return Prompt(token_ids, room if max_tokens is None else min(max_tokens, room))
    if len(token_ids) + max_tokens > context:
        raise ContextLengthExceeded.of_messages_and_answer(context, len(token_ids), max_tokens)
    return Prompt(token_ids, max_tokens)


def render_chat(
    messages: Sequence[ChatMessage],
    model: ServedModel,
    *,
    opens_answer: bool,
    continues: bool = False,
    variables: Mapping[str, Any] = MappingProxyType({}),
) -> list[int]:
    """Apply the model's chat template; `variables` are the client's own, and cannot replace ours.

    Raises:
        InvalidParameter: the template refuses the conversation.
    """
    assert model.template is not None
    try:
        return model.template.encode(
            [message.for_template() for message in messages],
            add_generation_prompt=opens_answer,
            continue_final_message=continues,
            **{name: value for name, value in variables.items() if name not in _RESERVED_VARIABLES},
        )
    except ChatTemplateError as error:
        raise InvalidParameter("invalid_value", "messages", f"Invalid 'messages': {error}.") from None


def encode_texts(
    texts: Sequence[str | TokenIds],
    model: ServedModel,
    param: str,
    *,
    parse_special: bool,
    empty_token: str | None = END_OF_TEXT,
) -> list[list[int]]:
    """Encode texts; check ids. An empty text becomes `empty_token`, or stays empty.

    Raises:
        InvalidParameter: a token id is not in the vocabulary.
    """
    encoded: list[list[int]] = []
    for i, text in enumerate(texts):
        if isinstance(text, str):
            encoded.append(model.tokenizer.encode(text, parse_special=parse_special))
        else:
            check_token_ids(text, model, f"{param}[{i}]" if len(texts) > 1 else param)
            encoded.append(list(text))
        if not encoded[-1] and empty_token is not None:
            encoded[-1] = [model.tokenizer.special_tokens.get(empty_token, model.tokenizer.eos_id)]
    return encoded


def check_token_ids(token_ids: Sequence[int], model: ServedModel, param: str) -> None:
    """Refuse ids that the model has no row for.

    Raises:
        InvalidParameter: naming the id, its place and the size of the vocabulary.
    """
    for i, token_id in enumerate(token_ids):
        if not 0 <= token_id < model.vocab_size:
            message = (
                f"Invalid '{param}[{i}]': token id {str(token_id)[:40]} is not in the vocabulary, "
                f"which has {model.vocab_size} tokens."
            )
            raise InvalidParameter("invalid_token_id", f"{param}[{i}]", message)


def truncate(token_ids: list[int], keep: int, side: Literal["left", "right"]) -> list[int]:
    """Drop tokens from one side until `keep` are left."""
    if len(token_ids) <= keep:
        return token_ids
    return token_ids[len(token_ids) - keep :] if side == "left" else token_ids[:keep]


def _room(request: CompletionRequest, model: ServedModel, num_bos: int) -> int:
    """Return how many tokens of a text `truncate_prompt_tokens` leaves."""
    limit = request.truncate_prompt_tokens
    keep = max(1, model.context - request.max_tokens) if limit is None or limit == FIT else limit
    return max(0, keep - num_bos)


def _fit_completion(
    token_ids: list[int], max_tokens: int, model: ServedModel, settings: ServiceSettings, num_bos: int
) -> Prompt:
    room = model.context - len(token_ids)
    if settings.max_tokens_policy == "clamp" and room > 0:
        max_tokens = min(max_tokens, room)
    if max_tokens > room:
        raise ContextLengthExceeded.of_prompt(model.context, len(token_ids), max_tokens)
    return Prompt(token_ids, max_tokens, num_bos)


def _encode_chat(request: ChatRequest, model: ServedModel) -> list[int]:
    """Render; with `truncate_prompt_tokens`, leave out the oldest turns, whole, until the rest fits."""
    if request.truncate_prompt_tokens is None:
        return _render_request(request, request.messages, model)
    limit = request.truncate_prompt_tokens
    keep = model.context - (request.token_limit or 1) if limit == FIT else limit
    turns = _droppable_turns(request.messages)

    def render_without(num_turns: int) -> list[int]:
        dropped = {i for turn in turns[:num_turns] for i in turn}
        messages = [message for i, message in enumerate(request.messages) if i not in dropped]
        return _render_request(request, messages, model)

    fewest = bisect_left(range(len(turns)), True, key=lambda num_turns: len(render_without(num_turns)) <= keep)
    token_ids = render_without(fewest)
    if len(token_ids) > keep:
        raise ContextLengthExceeded.of_messages(keep, len(token_ids))
    return token_ids


def _render_request(request: ChatRequest, messages: Sequence[ChatMessage], model: ServedModel) -> list[int]:
    return render_chat(
        messages,
        model,
        opens_answer=request.opens_answer,
        continues=request.continue_final_message,
        variables={**request.chat_template_kwargs, **_tools(request)},
    )


def _tools(request: ChatRequest) -> dict[str, Any]:
    """Return what templates show of functions, where the model is to call one."""
    if request.forced_calls is None or request.tools is None:
        return {}
    return {"tools": [tool.model_dump(exclude_unset=True) for tool in request.tools]}


def _droppable_turns(messages: Sequence[ChatMessage]) -> list[list[int]]:
    """Group messages by question and what follows it, oldest first; the system's are in no group, nor is the last."""
    turns: list[list[int]] = []
    for i, message in enumerate(messages):
        if message.role in ("system", "developer"):
            continue
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(i)
    return turns[:-1]
