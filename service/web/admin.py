"""Admin routes: add, replace, remove and list models while requests run. They exist only where an admin key does."""

import asyncio
import re
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.settings import ServiceSettings
from service.web.body import parse_object, read_body
from service.web.catalog import has_changed, read_model
from service.web.errors import InvalidParameter, quote
from service.web.frontend import Frontend
from service.web.loads import LoadError
from service.web.middleware import exchange_of
from service.web.models import ServedModel
from service.web.protocol.admin import NewModel
from service.web.validation import ignored_params, validate


class AdminRoutes:
    """Changes to what is served, one after another."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings
        self._roots = [root.resolve() for root in settings.model_roots]
        self._lock = asyncio.Lock()

    async def list(self, _: Request) -> Response:
        """Show every model with its version, its directory and how many need it."""
        return JSONResponse({"object": "list", "data": [self._describe(model) for model in self._frontend.models]})

    async def add(self, request: Request) -> Response:
        """Load a model and serve it; answer once it takes requests, or with the reason why it never will."""
        data = parse_object(await read_body(request.receive, self._settings.max_body_bytes))
        body = validate(NewModel, data, self._settings)
        ignored_params(NewModel, data, strict=True)
        path = self._resolve(body.path)
        exchange_of(request.scope).facts["model"] = body.id
        async with self._lock:
            self._frontend.check_open()
            try:
                model = await run_in_threadpool(self._read, path, body.id)
                await self._frontend.loads.add(model)
            except (ValueError, LoadError, OSError) as error:
                told = error.strerror if isinstance(error, OSError) else None
                reason = re.sub(re.escape(str(path)), lambda _: body.path, told or str(error))
                raise InvalidParameter("invalid_value", "path", f"Invalid 'path': {reason}") from error
        return JSONResponse(self._describe(model))

    async def remove(self, request: Request) -> Response:
        """Serve a model no more; requests that run finish first."""
        model_id = request.path_params["id"]
        async with self._lock:
            self._frontend.check_open()
            removed = self._frontend.loads.remove(model_id)
        return JSONResponse({"id": removed.id, "object": "model", "deleted": True})

    def _read(self, path: Path, model_id: str | None) -> ServedModel:
        models = self._frontend.models
        model = read_model(path, self._settings, list(models), model_id)
        if models.is_alias(model.id):
            raise ValueError(f"{model.id!r} is an alias of another model; give another id")
        if model.base is not None and has_changed(model.base, self._settings):
            raise ValueError(f"its base {model.base.id!r} has changed on disk since it was loaded; replace that first")
        return model

    def _resolve(self, path: str) -> Path:
        """Return a directory that models may be loaded from; of others not even their existence is told.

        Raises:
            InvalidParameter: it is elsewhere.
        """
        try:
            resolved = Path(path).resolve()
        except (ValueError, OSError, RuntimeError):
            resolved = Path("/")
        if not any(resolved.is_relative_to(root) and resolved != root for root in self._roots):
            message = f"Invalid 'path': {quote(path)} is not below a directory that models may be loaded from."
            raise InvalidParameter("invalid_value", "path", message)
        return resolved

    def _describe(self, model: ServedModel) -> dict[str, Any]:
        return {
            **model.card(),
            "version": model.version,
            "path": str(model.checkpoint.path),
            "fingerprint": model.fingerprint,
            "status": "ready" if self._frontend.loads.is_loaded(model.version) else "loading",
            "uses": model.uses.count,
        }
