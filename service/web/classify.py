"""POST /classify and /predict: texts in, labels with probabilities out."""

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from model.directory import Checkpoint
from service.host.messages import Classify
from service.settings import ServiceSettings
from service.web.errors import InvalidParameter
from service.web.fields import FIT
from service.web.frontend import Frontend
from service.web.intake import in_good_time, take_in
from service.web.models import ServedModel
from service.web.prompts import encode_texts, truncate
from service.web.protocol.classify import ClassifyRequest, PredictRequest
from service.web.readings import check_lengths, deadline_of, read_rows


class ClassifyRoute:
    """The endpoint of the classifiers."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings

    async def classify(self, request: Request) -> Response:
        """Label one or several texts."""
        choose = partial(self._frontend.models.choose, capability="classify")
        received = await take_in(request, ClassifyRequest, choose, self._settings)
        body, model = received.body, received.model
        _check_top_k(body, model)
        items = await in_good_time(received.size_bytes, encode_items, body, model)
        data = await self._label(request, items, body, model)
        answer = {
            "id": "classify-" + uuid.uuid4().hex,
            "object": "list",
            "created": int(time.time()),
            "model": model.id,
            "labels": list(model.checkpoint.labels),
            "data": data,
            "usage": usage_of(items),
        }
        return _json(answer, received.headers)

    async def predict(self, request: Request) -> Response:
        """Label one or several texts, in the shape of text-embeddings-inference: bare lists, best label first."""
        choose = partial(self._frontend.models.choose, capability="classify")
        received = await take_in(request, PredictRequest, choose, self._settings)
        body = received.body.as_classify()
        items = await in_good_time(received.size_bytes, encode_items, body, received.model)
        data = await self._label(request, items, body, received.model)
        lists = [[{"score": entry["score"], "label": entry["label"]} for entry in item["scores"]] for item in data]
        return _json(lists if received.body.inputs.is_list else lists[0], received.headers)

    async def _label(
        self, request: Request, items: Sequence[list[int]], body: ClassifyRequest, model: ServedModel
    ) -> list[dict[str, Any]]:
        deadline_s = deadline_of(request, self._settings)
        messages = [
            Classify(uuid.uuid4().hex, self._frontend.consumer, model.version, token_ids, deadline_s)
            for token_ids in items
        ]
        rows = await read_rows(request, self._frontend, model, messages, self._settings)
        return [classification(index, row, model.checkpoint, body) for index, row in enumerate(rows)]


def encode_items(body: ClassifyRequest, model: ServedModel) -> list[list[int]]:
    """Encode the texts, as plain text, and cut them if the request allows it.

    Raises:
        InvalidParameter: an item is empty, or has a token id outside the vocabulary.
        ContextLengthExceeded: an item is too long.
    """
    texts, param = (body.input, "input") if body.input is not None else (body.inputs or (), "inputs")
    items = encode_texts(texts, model, param, parse_special=False, empty_token=None)
    for i, token_ids in enumerate(items):
        if not token_ids:
            place = f"{param}[{i}]" if len(items) > 1 else param
            raise InvalidParameter("invalid_value", place, f"Invalid '{place}': there is no text to classify.")
    limit = body.truncate_prompt_tokens
    side = body.truncation_side or model.tokenizer.truncation_side
    if limit is not None and limit != FIT:
        items = [truncate(token_ids, limit, side) for token_ids in items]
    if body.truncate or limit == FIT:
        longest = min(model.context, model.tokenizer.max_length or model.context)
        items = [truncate(token_ids, longest, side) for token_ids in items]
    check_lengths(items, model)
    return items


def classification(
    index: int, logits: Sequence[float], checkpoint: Checkpoint, body: ClassifyRequest
) -> dict[str, Any]:
    """Return one entry of `data`. Labels with equal logits rank in index order.

    Where labels do not exclude each other, each has a probability of its own, and `predicted_labels` names those with
    at least a half.
    """
    labels = checkpoint.labels
    probs = [_sigmoid(logit) for logit in logits] if checkpoint.is_multi_label else _softmax(logits)
    is_raw = body.raw_scores or not body.use_activation
    scores = logits if is_raw else probs
    ranking = sorted(range(len(labels)), key=lambda i: (-logits[i], i))
    ranked = [{"label": labels[i], "label_index": i, "score": scores[i]} for i in ranking[: body.top_k]]
    entry: dict[str, Any] = {
        "object": "classification",
        "index": index,
        **ranked[0],
        "probs": probs,
        "num_classes": len(labels),
        "scores": ranked,
    }
    if checkpoint.is_multi_label:
        entry["predicted_labels"] = [label for label, prob in zip(labels, probs, strict=True) if prob >= 0.5]
    return entry | ({"logits": list(logits)} if is_raw else {})


def usage_of(items: Sequence[Sequence[int]]) -> Mapping[str, int]:
    """Count the tokens that were read; none are generated."""
    num_tokens = sum(len(token_ids) for token_ids in items)
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens, "completion_tokens": 0}


def _json(answer: Any, headers: Mapping[str, str]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)


def _check_top_k(body: ClassifyRequest, model: ServedModel) -> None:
    num_classes = len(model.checkpoint.labels)
    if body.top_k is not None and body.top_k > num_classes:
        message = (
            f"Invalid 'top_k': integer above maximum value. Expected a value <= {num_classes}, "
            f"but got {str(body.top_k)[:40]} instead."
        )
        raise InvalidParameter("integer_above_max_value", "top_k", message)


def _sigmoid(logit: float) -> float:
    return 0.5 * (1 + math.tanh(logit / 2))  # which never overflows


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
