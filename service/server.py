"""`groundup serve`: from settings to a running service. Everything is made here and handed to whoever needs it."""

import importlib.metadata
import json
import logging
import socket
import sys
from collections.abc import Iterable
from typing import Any

from service import metrics
from service.host.supervisor import Supervisor
from service.host.workers import ClassifyWorker, GenerationWorker, Worker
from service.logs import configure_logging
from service.settings import ServiceSettings
from service.web import routes
from service.web.catalog import load_models
from service.web.frontend import Frontend
from service.web.loads import initial_loads
from service.web.models import Capability, ServedModel, ServedModels

logger = logging.getLogger(__name__)

_CALLS: dict[Capability, tuple[str, dict[str, Any]]] = {
    "completions": ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 64}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": 'Spell "groundup".'}]}),
    "embeddings": ("/v1/embeddings", {"input": "Once upon a time"}),
    "classify": ("/classify", {"input": "You won a prize! Call now to claim it."}),
}

_EVERY_HOST = ("0.0.0.0", "::", "127.0.0.1")


def run(settings: ServiceSettings) -> None:
    """Serve until told to stop, then exit with 0, or with 1 after a failure.

    Raises:
        ValueError: a checkpoint cannot be served, or the address cannot be listened on; the message says what to do.
    """
    configure_logging()
    models = load_models(settings)
    listener = listen(settings.host, settings.port)
    supervisor = Supervisor(make_workers(models, settings), settings)
    frontend = Frontend(models, supervisor.channels, settings)
    routes.install(supervisor.app, frontend, settings)
    logger.info("loading %s; until then the port answers 503", ", ".join(model.id for model in models))
    metrics.BUILD_INFO.labels(importlib.metadata.version("groundup")).set(1)
    text = welcome(models, settings.host, listener.getsockname()[1])
    sys.exit(supervisor.run(frontend, listener, on_ready=lambda: _say(text)))


def make_workers(models: ServedModels, settings: ServiceSettings) -> list[Worker[Any]]:
    """Make one worker for all models that generate and one for all classifiers.

    Where models may be added later, both are there from the start; without models they only wait.
    """
    loads = initial_loads(models)
    may_change = bool(settings.admin_key_hashes)
    workers: list[Worker[Any]] = []
    if loads["generate"] or may_change:
        workers.append(GenerationWorker(loads["generate"], settings))
    if loads["classify"] or may_change:
        workers.append(ClassifyWorker(loads["classify"], settings))
    return workers


def listen(host: str, port: int) -> socket.socket:
    """Bind the address.

    Raises:
        ValueError: it is taken, or not ours.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None


def welcome(models: Iterable[ServedModel], host: str, port: int) -> str:
    """Write what a newcomer wants to see: where the service is, and one call to try for each kind of model."""
    url = f"http://{'localhost' if host in _EVERY_HOST else host}:{port}"
    first_of_kind: dict[Capability, ServedModel] = {}
    for model in models:
        first_of_kind.setdefault(model.capabilities[0], model)
    lines = [f"Serving {', '.join(model.id for model in models)} on {url}", ""]
    for capability, model in first_of_kind.items():
        path, body = _CALLS[capability]
        lines += [f"curl {url}{path} \\", "  -H 'Content-Type: application/json' \\"]
        lines += [f"  -d '{json.dumps({'model': model.id, **body})}'", ""]
    return "\n".join([*lines, "Stop with Ctrl-C.", ""])


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
