"""POST /v1/embeddings: texts in, vectors out."""

import base64
import math
import struct
import uuid
from collections.abc import Sequence
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service import metrics
from service.host.messages import Embed
from service.settings import ServiceSettings
from service.web.errors import InvalidParameter
from service.web.fields import FIT, TokenIds
from service.web.frontend import Frontend
from service.web.intake import in_good_time, take_in
from service.web.models import ServedModel
from service.web.prompts import check_token_ids, truncate
from service.web.protocol.embeddings import EmbeddingRequest
from service.web.readings import check_lengths, deadline_of, read_rows

_HINT = (
    " If these ids are from another tokenizer, send texts: LangChain's OpenAIEmbeddings does with "
    "check_embedding_ctx_length=False."
)


class EmbeddingRoute:
    """The endpoint of embeddings."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings

    async def embed(self, request: Request) -> Response:
        """Embed one or several texts."""
        choose = partial(self._frontend.models.choose, capability="embeddings")
        received = await take_in(request, EmbeddingRequest, choose, self._settings)
        body, model = received.body, received.model
        _check_dimensions(body, model)
        items = await in_good_time(received.size_bytes, encode_items, body, model, self._settings)
        deadline_s = deadline_of(request, self._settings)
        messages = [
            Embed(uuid.uuid4().hex, self._frontend.consumer, model.version, token_ids, body.pooling, deadline_s)
            for token_ids in items
        ]
        rows = await read_rows(request, self._frontend, model, messages, self._settings)
        metrics.EMBEDDING_ITEMS.labels(model.id, metrics.ENGINE).inc(len(items))
        num_tokens = sum(len(token_ids) for token_ids in items)
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _encoded(embedding(row, body), body)}
                for index, row in enumerate(rows)
            ],
            "model": model.id,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }
        return Response(msgspec.json.encode(answer), media_type="application/json", headers=received.headers)


def encode_items(body: EmbeddingRequest, model: ServedModel, settings: ServiceSettings) -> list[list[int]]:
    """Encode the texts, as plain text, and cut them if the request allows it.

    Raises:
        InvalidParameter: an item is empty, has a token id outside the vocabulary, or there are too many tokens.
        ContextLengthExceeded: an item is too long.
    """
    texts: Sequence[str | TokenIds] = body.input
    items = [_encode(text, i, body, model, settings) for i, text in enumerate(texts)]
    limit = body.truncate_prompt_tokens
    if limit is not None:
        keep = model.context if limit == FIT else limit
        items = [truncate(token_ids, keep, body.truncation_side) for token_ids in items]
    check_lengths(items, model)
    num_tokens = sum(len(token_ids) for token_ids in items)
    if num_tokens > settings.max_embedding_tokens:
        message = (
            f"Invalid 'input': too many tokens. Expected at most {settings.max_embedding_tokens} in all texts "
            f"together, but got {num_tokens}."
        )
        raise InvalidParameter("array_above_max_length", "input", message)
    return items


def embedding(row: Sequence[float], body: EmbeddingRequest) -> Sequence[float]:
    """Keep the leading components of a vector and scale it."""
    row = row[: body.dimensions]
    length = math.sqrt(math.fsum(value * value for value in row)) if body.normalize else 0.0
    return [value / length for value in row] if length > 0 else row


def _encode(
    text: str | TokenIds, index: int, body: EmbeddingRequest, model: ServedModel, settings: ServiceSettings
) -> list[int]:
    place = f"input[{index}]" if len(body.input) > 1 else "input"
    if isinstance(text, str):
        if not text:
            raise InvalidParameter("invalid_value", place, f"Invalid '{place}': there is no text to embed.")
        return [*model.tokenizer.bos_ids, *model.tokenizer.encode(text)]
    if not settings.embeddings_accept_token_ids:
        message = f"Invalid type for '{place}': this server embeds texts only, not token ids.{_HINT}"
        raise InvalidParameter("invalid_type", place, message)
    try:
        check_token_ids(text, model, place)
    except InvalidParameter as error:
        error.message += _HINT
        raise
    return list(text)


def _check_dimensions(body: EmbeddingRequest, model: ServedModel) -> None:
    size = model.checkpoint.config.n_embd
    if body.dimensions is not None and body.dimensions > size:
        message = (
            f"Invalid 'dimensions': integer above maximum value. Expected a value <= {size}, "
            f"but got {str(body.dimensions)[:40]} instead."
        )
        raise InvalidParameter("integer_above_max_value", "dimensions", message)


def _encoded(row: Sequence[float], body: EmbeddingRequest) -> Sequence[float] | str:
    if body.encoding_format == "float":
        return row
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode("ascii")
