"""Which path leads where, and what surrounds every route. `install` puts it all on LitServe's app."""

import importlib.metadata
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from service import metrics
from service.settings import ServiceSettings
from service.web.admin import AdminRoutes
from service.web.classify import ClassifyRoute
from service.web.completions import GenerationRoutes
from service.web.embeddings import EmbeddingRoute
from service.web.errors import ApiError, InternalError, MethodNotSupported, UnknownUrl
from service.web.frontend import Frontend
from service.web.keys import make_admin_keys, make_keys
from service.web.middleware import CrossOrigin, Exchanges, Guard, LastResort, error_response, exchange_of
from service.web.openapi import describe_service
from service.web.responses import ResponsesRoute
from service.web.tokenization import TokenizerRoutes

Handler = Callable[[Request], Awaitable[Response]]

ALIASES: Mapping[str, str] = {
    "/v1/chat": "/v1/chat/completions",
    "/v1/classify": "/classify",
    "/v1/health": "/health",
}
"""Second paths of one handler; logs and metrics know the first one only."""

EXPOSED_HEADERS = (
    *("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "x-ignored-params"),
    *(f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)
"""What pages of other origins may read; each by name, since browsers know no patterns."""

_HEALTH_PATHS = frozenset({"/health", "/v1/health", "/livez", "/readyz"})


def install(app: FastAPI, frontend: Frontend, settings: ServiceSettings) -> None:
    """Make `app` ours: routes, error answers and middleware. Whatever routes it had are gone."""
    routes = _routes(frontend, settings)
    app.router.routes[:] = routes
    app.router.redirect_slashes = False
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    public = _HEALTH_PATHS if settings.metrics_require_key else _HEALTH_PATHS | {"/metrics"}
    app.add_middleware(
        Guard,
        max_body_bytes=settings.max_body_bytes,
        keys=make_keys(settings),
        admin_keys=make_admin_keys(settings),
        public=public,
    )
    app.add_middleware(LastResort)
    if settings.cors_origins:
        app.add_middleware(
            CrossOrigin,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    names = {route.path: ALIASES.get(route.path, route.path) for route in routes}
    app.add_middleware(Exchanges, handlers=names)


def _routes(frontend: Frontend, settings: ServiceSettings) -> list[Route]:
    generation = GenerationRoutes(frontend, settings)
    tokenizer = TokenizerRoutes(frontend, settings)
    posts: dict[str, Handler] = {
        "/v1/completions": generation.completions,
        "/v1/chat/completions": generation.chat,
        "/v1/responses": ResponsesRoute(frontend, settings).respond,
        "/v1/embeddings": EmbeddingRoute(frontend, settings).embed,
        "/classify": ClassifyRoute(frontend, settings).classify,
        "/predict": ClassifyRoute(frontend, settings).predict,
        "/tokenize": tokenizer.tokenize,
        "/detokenize": tokenizer.detokenize,
    }
    gets: dict[str, Handler] = {
        "/tokenizer_info": tokenizer.info,
        "/v1/models": _Models(frontend).list,
        "/v1/models/{id:path}": _Models(frontend).get,
        "/health": _Health(frontend).ready,
        "/readyz": _Health(frontend).ready,
        "/livez": _Health(frontend).live,
        "/metrics": _Metrics(settings).get,
        "/openapi.json": _Description(frontend, settings).get,
    }
    for alias, path in ALIASES.items():
        table = posts if path in posts else gets
        table[alias] = table[path]
    deletes: dict[str, Handler] = {}
    if settings.admin_key_hashes:
        admin = AdminRoutes(frontend, settings)
        posts["/admin/models"] = admin.add
        gets["/admin/models"] = admin.list
        deletes["/admin/models/{id:path}"] = admin.remove
    tables = {"POST": posts, "GET": gets, "DELETE": deletes}
    return [
        Route(path, handler, methods=[method]) for method, table in tables.items() for path, handler in table.items()
    ]


class _Models:
    def __init__(self, frontend: Frontend) -> None:
        self._models = frontend.models

    async def list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._models.cards(exchange_of(request.scope).key.may_use)})

    async def get(self, request: Request) -> Response:
        card = self._models.card(request.path_params["id"], exchange_of(request.scope).key.may_use)
        return JSONResponse(card)


class _Description:
    """What this service takes and gives, for the models of a key; written anew only when those change, since it takes
    a while."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._models = frontend.models
        self._settings = settings
        self._written: dict[frozenset[str] | None, tuple[list[dict[str, Any]], bytes]] = {}

    async def get(self, request: Request) -> Response:
        key = exchange_of(request.scope).key
        cards, document = self._written.get(key.models, ([], b""))
        if not document or cards != self._models.cards(key.may_use):
            cards = self._models.cards(key.may_use)
            document = await run_in_threadpool(self._describe, cards)
            self._written[key.models] = cards, document
        return Response(document, media_type="application/json")

    def _describe(self, cards: list[dict[str, Any]]) -> bytes:
        version = importlib.metadata.version("groundup")
        return msgspec.json.encode(describe_service(cards, self._settings, version))


class _Health:
    """Answered from memory, so that a probe never waits for the engine."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    async def ready(self, _: Request) -> Response:
        status = self._frontend.status()
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    async def live(self, _: Request) -> Response:
        """Only a stalled engine needs a restart; loading and draining do not."""
        is_stalled = self._frontend.is_stalled
        return JSONResponse({"status": "engine_stalled" if is_stalled else "ok"}, 503 if is_stalled else 200)


class _Metrics:
    """Numbers for Prometheus."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._vllm_names = settings.metrics_vllm_compat

    async def get(self, request: Request) -> Response:
        # Adding up every process's files takes tens of milliseconds, which no stream should have to wait for.
        page, content_type = await run_in_threadpool(
            metrics.render, request.headers.get("accept"), vllm_names=self._vllm_names
        )
        return Response(page, headers={"content-type": content_type})


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request.scope)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The router itself knows two errors: no such path, and no such method on it."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    answer: ApiError = InternalError()
    if error.status_code == 404:
        answer = UnknownUrl(method, path)
    elif error.status_code == 405:
        answer = MethodNotSupported(method, path, sorted(_methods_of(request)))
    return error_response(answer, request.scope)


def _methods_of(request: Request) -> set[str]:
    """Return what may be done on a path: several routes may share it."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
