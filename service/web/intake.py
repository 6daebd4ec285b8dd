"""The first half of every POST: body, model, request object. The order of the checks is the API's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from service import metrics
from service.settings import ServiceSettings
from service.web.body import parse_object, read_body
from service.web.errors import InvalidParameter
from service.web.middleware import exchange_of
from service.web.models import Choose, ServedModel
from service.web.protocol.base import RequestBody
from service.web.validation import ignored_params, validate

_SMALL_BYTES = 32 * 1024
"""About a millisecond of parsing and tokenizing."""

Params = ParamSpec("Params")
Result = TypeVar("Result")
BodyType = TypeVar("BodyType", bound=RequestBody)
BodyOut = TypeVar("BodyOut", bound=RequestBody, covariant=True)


@dataclass(frozen=True, slots=True)
class Received(Generic[BodyOut]):
    """A valid request for a model that exists."""

    body: BodyOut
    model: ServedModel
    ignored: tuple[str, ...]
    """Names of fields that mean nothing to us."""
    size_bytes: int

    @property
    def headers(self) -> dict[str, str]:
        """Headers that every answer to it carries."""
        return {"x-ignored-params": ", ".join(self.ignored)} if self.ignored else {}


async def take_in(
    request: Request,
    body_type: type[BodyType],
    choose: Choose,
    settings: ServiceSettings,
) -> Received[BodyType]:
    """Read and check a request. `choose` finds the model that the JSON object asks for among those of its key.

    Raises:
        ApiError: the first thing that is wrong.
        ClientGone: the client left before the body was complete.
    """
    exchange = exchange_of(request.scope)
    exchange.key.quota.begin_request()
    content = await read_body(request.receive, settings.max_body_bytes)
    data = await in_good_time(len(content), parse_object, content)
    model = choose(data, may_use=exchange.key.may_use)
    exchange.hold(model.uses)
    exchange.facts["model"] = model.id
    body = await in_good_time(len(content), validate, body_type, data, settings)
    ignored = [*body.ignored, *ignored_params(body_type, data, strict=settings.strict_params)]
    for name in body_type.without_effect & data.keys():
        metrics.IGNORED_PARAMS.labels(name).inc()
    if ignored:
        metrics.IGNORED_PARAMS.labels("other").inc(len(ignored))
        exchange.facts["ignored"] = ",".join(ignored)
    return Received(body, model, tuple(ignored), len(content))


async def in_good_time(
    size_bytes: int, work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs
) -> Result:
    """Do small work at once and large work in a thread, so that no stream and no probe has to wait for it."""
    if size_bytes <= _SMALL_BYTES:
        return work(*args, **kwargs)
    return await run_in_threadpool(work, *args, **kwargs)


def timeout_of(request: Request, settings: ServiceSettings) -> float:
    """Return how long a request may take, in seconds; a header may shorten it.

    Raises:
        InvalidParameter: the header is not a positive integer.
    """
    header = request.headers.get("x-request-timeout-ms")
    if header is None:
        return settings.request_timeout_s
    if not (header.isascii() and header.isdigit() and len(header) <= 18 and int(header) > 0):
        message = "Invalid header 'x-request-timeout-ms': expected a positive integer of milliseconds."
        raise InvalidParameter("invalid_value", "x-request-timeout-ms", message)
    return min(settings.request_timeout_s, int(header) / 1000)
