"""Real servers: `groundup serve` on tiny checkpoints, a free port of the loopback, ended with the test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from model.checkpoint import save_checkpoint
from model.tokenizer import Tokenizer
from tests.program import Program, run_program
from tests.tiny import make_config, make_gpt

SETTINGS = {"port": 0, "num-threads": 1, "drain-delay-s": 0}


@dataclass(frozen=True)
class Server:
    """A service that is ready."""

    program: Program
    url: str
    client: httpx.Client
    """Speaks raw HTTP to it; paths are relative to `url`."""


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(tiny_checkpoints: Path, tmp_path: Path) -> Serve:
    """Start a server of one's own: `with serve("tiny-base", drain_timeout_s=1) as server`; no name means all three."""

    @contextmanager
    def begin(*names: str, **settings: object) -> Iterator[Server]:
        with start_server(tiny_checkpoints, tmp_path / "server.log", *names, **settings) as server:
            yield server

    return begin


@pytest.fixture(scope="session")
def server(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of all three checkpoints for every test that leaves it as it was."""
    with start_server(tiny_checkpoints, tmp_path_factory.mktemp("server") / "server.log") as shared:
        yield shared


@pytest.fixture(scope="session")
def long_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A random model whose context of 8192 tokens keeps one sequence busy for seconds."""
    path = tmp_path_factory.mktemp("long") / "long"
    save_checkpoint(path, make_gpt(make_config("gpt2", block_size=8192)), tokenizer, model_card="# Random\n")
    return path


@contextmanager
def start_server(folder: Path, log: Path, *names: str, **settings: object) -> Iterator[Server]:
    paths = [str(folder / name) for name in names] or [str(path) for path in sorted(folder.iterdir())]
    merged = SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
    flags = [text for name, value in merged.items() for text in (f"--{name}", str(value))]
    with run_program("-m", "groundup", "serve", *paths, *flags, log=log) as program:
        url = program.wait_for(r"on (http://\S+)", timeout_s=120)[1].replace("localhost", "127.0.0.1")
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Server(program, url, client)
