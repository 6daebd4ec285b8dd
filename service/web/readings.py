"""Requests that generate nothing: each text becomes one row of numbers, of labels or of an embedding."""

import asyncio
import time
from collections.abc import Sequence

from starlette.requests import Request

from service import metrics
from service.host.messages import Admitted, Classified, Classify, Embed, Embedded, Event
from service.settings import ServiceSettings
from service.web.errors import ClientGone, ContextLengthExceeded
from service.web.frontend import Frontend
from service.web.intake import timeout_of
from service.web.middleware import exchange_of
from service.web.models import ServedModel

_AT_ONCE = 256
"""Texts of one request that wait for the worker together."""


def deadline_of(request: Request, settings: ServiceSettings) -> float:
    """Return when to give up: a text is read in a few turns of the worker, so all that can take long is the wait."""
    return time.monotonic() + min(settings.queue_timeout_s, timeout_of(request, settings))


async def read_rows(
    request: Request,
    frontend: Frontend,
    model: ServedModel,
    messages: Sequence[Embed | Classify],
    settings: ServiceSettings,
) -> list[list[float]]:
    """Return the row of every message, in order. Not more of them wait at once than may.

    Raises:
        ApiError: the request was refused, or failed.
        ClientGone: nobody waits for the answer any more.
    """
    started_s = time.monotonic()
    exchange = exchange_of(request.scope)
    exchange.facts["items"] = len(messages)
    exchange.key.quota.reserve_tokens(sum(len(message.prompt_ids) for message in messages))
    at_once = min(_AT_ONCE, settings.max_waiting_requests)
    rows: list[list[float]] = []
    outcome = "error"
    try:
        for start in range(0, len(messages), at_once):
            rows += await _read_group(request, frontend, model, messages[start : start + at_once])
        outcome = "stop"
        metrics.E2E.observe(model.id, time.monotonic() - started_s)
    except (ClientGone, asyncio.CancelledError):
        outcome = "abort"
        raise
    finally:
        metrics.REQUEST_SUCCESS.labels(model.id, metrics.ENGINE, outcome).inc()
    return rows


async def _read_group(
    request: Request, frontend: Frontend, model: ServedModel, messages: Sequence[Embed | Classify]
) -> list[list[float]]:
    rows: dict[str, list[float]] = {}
    with frontend.call(model, messages) as call:
        async with call.watching(request.receive):
            while len(rows) < len(messages):
                rows |= {event.uid: _row(event) for event in await call.receive() if not isinstance(event, Admitted)}
    return [rows[message.uid] for message in messages]


def _row(event: Event) -> list[float]:
    if isinstance(event, Classified):
        return event.logits
    assert isinstance(event, Embedded)
    return event.values


def check_lengths(items: Sequence[Sequence[int]], model: ServedModel) -> None:
    """Refuse texts that the model cannot read whole.

    Raises:
        ContextLengthExceeded: one is too long.
    """
    for token_ids in items:
        if len(token_ids) > model.context:
            raise ContextLengthExceeded.of_input(model.context, len(token_ids))
