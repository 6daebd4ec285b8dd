"""What happens to every request before and after its route: pure ASGI, so that disconnects still reach the route.

`Exchanges` goes outside: request ids, common headers, trailing slashes, one log line, HTTP metrics. `CrossOrigin` names
the pages of other origins that may read what comes from within, errors included. `LastResort` answers exceptions that
nobody expected. `Guard` goes inside: size and type of the body, API keys. All know headers only, never a body.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.web.body import discard
from service.web.errors import (
    ApiError,
    BodyTooLarge,
    ClientGone,
    InsufficientPermissions,
    InternalError,
    UnsupportedMediaType,
)
from service.web.keys import Key, Keys
from service.web.models import Uses

access_log = logging.getLogger("groundup.access")
logger = logging.getLogger(__name__)

STATUS_CLIENT_GONE = 499
ADMIN_PREFIX = "/admin/"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_JSON_TYPE = re.compile(r"application/([a-z0-9.+-]+\+)?json", re.IGNORECASE)
_METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
_PARENTS = ("/v1/models/", "/admin/models/")
"""What is followed by the id of a model, whatever that may be."""
_PROBES = ("/health", "/livez", "/readyz", "/metrics")
"""Asked every few seconds for ever; their successes are not worth a line."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer, for headers, log and metrics."""

    request_id: str
    started_s: float
    key: Key = field(default_factory=Key)
    """Whose request it is."""
    status: int | None = None
    error_code: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known early for the log line: the name of the key, the model."""
    describe: Callable[[], Mapping[str, Any]] = dict
    """Asked at the end for the rest: token counts, timings."""
    held: list[Uses] = field(default_factory=list)
    """What this exchange needs until it is over."""

    def hold(self, uses: Uses) -> None:
        """Keep a model loaded until the exchange is over."""
        uses.hold()
        self.held.append(uses)

    def release(self) -> None:
        """Need nothing any more."""
        while self.held:
            self.held.pop().release()


def exchange_of(scope: Scope) -> Exchange:
    """Return the record that `Exchanges` made for a request."""
    exchange = scope["groundup.exchange"]
    assert isinstance(exchange, Exchange)
    return exchange


def error_response(error: ApiError, scope: Scope) -> Response:
    """Answer with an error object, and remember it for the log."""
    exchange = exchange_of(scope)
    exchange.error_code = error.code or "none"
    return JSONResponse(error.body(exchange.request_id), error.status, headers=dict(error.headers))


class Exchanges:
    """Give each request an id, common headers, a log line and its place in the metrics."""

    def __init__(self, app: ASGIApp, handlers: Mapping[str, str]) -> None:
        """`handlers` maps known paths to their name in metrics; aliases share one."""
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(_request_id(Headers(scope=scope)), time.monotonic())
        # `/v1/x/` is `/v1/x`: a redirect would lose the body in some clients.
        scope = {**scope, "groundup.exchange": exchange, "path": scope["path"].rstrip("/") or "/"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                _add_headers(MutableHeaders(scope=message), exchange)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientGone:
            exchange.status = STATUS_CLIENT_GONE
        finally:
            exchange.release()
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        duration_s = time.monotonic() - exchange.started_s
        method, path = scope["method"], scope["path"]
        handler = self._handler(path)
        status = exchange.status or STATUS_CLIENT_GONE
        known_method = method if method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        metrics.HTTP_REQUESTS.labels(known_method, str(status), handler).inc()
        metrics.HTTP_SECONDS.labels(known_method, handler).observe(duration_s)
        if exchange.error_code is not None:
            metrics.ERRORS.labels(handler, exchange.error_code).inc()
        facts = {"error": exchange.error_code, **exchange.facts, **exchange.describe()}
        shown = "".join(f" {name}={value}" for name, value in facts.items() if value is not None)
        is_routine = handler in _PROBES and exchange.error_code is None
        access_log.log(
            logging.DEBUG if is_routine else logging.INFO,
            "%s %s %d %.1fms id=%s%s",
            method,
            handler,
            status,
            1000 * duration_s,
            exchange.request_id,
            shown,
        )

    def _handler(self, path: str) -> str:
        if path in self._handlers:
            return self._handlers[path]
        return next((f"{parent}{{id}}" for parent in _PARENTS if path.startswith(parent)), "other")


class CrossOrigin(CORSMiddleware):
    """starlette's, but for preflights that it refuses in plain text: they get what other OPTIONS requests get."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        is_preflight = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        if "origin" in headers and is_preflight and self.preflight_response(headers).status_code != 200:
            await self.simple_response(scope, receive, send, request_headers=headers)
        else:
            await super().__call__(scope, receive, send)


class LastResort:
    """Answer an exception that nobody expected, if nothing has been answered yet; it is logged, and ends here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientGone:
            raise
        except Exception:
            if scope["type"] != "http":
                raise
            exchange = exchange_of(scope)
            logger.exception("request %s failed", exchange.request_id)
            if exchange.status is None:
                await error_response(InternalError(), scope)(scope, receive, send)


class Guard:
    """Refuse what need not be read: too large, not JSON, without a key; in that order, before a route is looked up."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        keys: Keys,
        admin_keys: Keys | None,
        public: Collection[str],
    ):
        """`public` paths need no key; where there are `admin_keys`, paths below `ADMIN_PREFIX` take only those."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._keys = keys
        self._admin_keys = admin_keys
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            if isinstance(error, BodyTooLarge):
                await discard(receive)
            await error_response(error, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)
        content_type = headers.get("content-type", "")
        if scope["method"] in _METHODS_WITH_BODY and content_type and not _is_json(content_type):
            raise UnsupportedMediaType
        if scope["method"] != "OPTIONS" and scope["path"] not in self._public:
            exchange = exchange_of(scope)
            exchange.key = self._key(scope["path"], _sent_key(headers))
            exchange.facts["key"] = exchange.key.name

    def _key(self, path: str, sent: str) -> Key:
        if self._admin_keys is None or not path.startswith(ADMIN_PREFIX):
            return self._keys.find(sent)
        if self._keys.knows(sent):
            raise InsufficientPermissions("it needs an admin key")
        return self._admin_keys.find(sent)


def _request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else "req_" + uuid.uuid4().hex


def _add_headers(headers: MutableHeaders, exchange: Exchange) -> None:
    headers["x-request-id"] = exchange.request_id
    headers["openai-version"] = "2020-10-01"
    for name, value in exchange.key.quota.headers().items():
        headers[name] = value
    headers["openai-processing-ms"] = str(int(1000 * (time.monotonic() - exchange.started_s)))


def _is_json(content_type: str) -> bool:
    return _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()) is not None


def _sent_key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
