"""`groundup chain`: runs that follow one another, from a base to a judged assistant, out of one file.

Each stage is what its verb alone would do. All settings are checked before the first stage begins.
"""

import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from pydantic_settings import BaseSettings

from training.config.chain import VERBS, ChainConfig, Stage, load
from training.config.run import RunConfig
from training.run.progress import show_messages

logger = logging.getLogger(__name__)

START_S, STOP_S = 300.0, 60.0
"""How long a server may take to start and to end."""

INPUTS = ("base", "checkpoint", "responses", "against", "reference", "data", "valid_data", "test_data", "without")
"""Settings that name a file or a folder to read."""

POSITIONAL = ("checkpoint", "responses")
"""Those of them that are no flags."""


class ServerError(ValueError):
    """The server of a stage does not start; the message has what it said."""


def run(config: ChainConfig) -> None:
    """Do every stage in its turn; one that is asked to stop (Ctrl-C, SIGTERM) ends the chain.

    Raises:
        ValueError: whatever is wrong in a stage; the message names it.
    """
    show_messages()
    stages = config.runs
    check_inputs(stages)
    for stage in stages:
        logger.info("%s of %d: %s", str(stage).capitalize(), len(stages), name_of(stage))
        with serving(stage.serve) if stage.serve else nullcontext("") as server:
            settings = stage.config(server)
            try:
                load(VERBS[stage.verb][1])(settings)
            except ValueError as error:
                raise ValueError(f"{stage}: {error}") from error
        if isinstance(settings, RunConfig) and not settings.out.exists():
            logger.info("the chain ends here; the same command goes on")
            return


def check_inputs(stages: Sequence[Stage]) -> None:
    """See to it that every stage will find what it reads, be it made by a stage before it, and reads what is newest.

    Raises:
        ValueError: naming the first thing that nobody makes, or that was made of something which is now made anew.
    """
    made: list[Path] = []
    new: list[Path] = []
    for stage in stages:
        settings = stage.config()
        named = {name: getattr(settings, name, None) for name in INPUTS}
        paths = [(shown(name), path) for name, path in named.items() if isinstance(path, Path)]
        for flag, path in [*paths, *(("serve", Path(path)) for path in stage.serve)]:
            if not path.exists() and not any(path.is_relative_to(out) for out in made):
                raise ValueError(f"{stage}: {flag}: {path} does not exist, and no stage before makes it")
        out = getattr(settings, "out", None)
        if out is None:
            continue
        if out in made:
            raise ValueError(f"{stage}: --out: {out} is made by a stage before it; give it a place of its own")
        made.append(out)
        reads_new = [path for _, path in paths if any(path.is_relative_to(place) for place in new)]
        if isinstance(settings, RunConfig) and out.exists() and reads_new:
            raise ValueError(
                f"{stage}: --out: {out} was made of an earlier {reads_new[0]}, which is to be made anew; remove it, so "
                "that it is made anew, too"
            )
        if not out.exists():
            new.append(out)


def shown(name: str) -> str:
    """Return a setting as its verb's command line shows it."""
    return name.upper() if name in POSITIONAL else f"--{name.replace('_', '-')}"


def name_of(stage: Stage) -> str:
    """Return what a stage makes or measures."""
    settings: BaseSettings = stage.config()
    return str(next(path for name in ("out", "checkpoint") if (path := getattr(settings, name, None)) is not None))


@contextmanager
def serving(checkpoints: Sequence[str]) -> Iterator[str]:
    """Yield the address of a server of some checkpoints, on a free port of this machine.

    Raises:
        ServerError: it does not start.
    """
    with tempfile.NamedTemporaryFile("w+b", prefix="groundup-chain-", suffix=".log") as log:
        command = [sys.executable, "-m", "groundup", "serve", *checkpoints, "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen([*command, "--drain-delay-s", "0"], stdout=log, stderr=subprocess.STDOUT)
        try:
            yield wait_for_address(process, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the address that a server says it is ready at.

    Raises:
        ServerError: it ends, or takes too long.
    """
    started = time.monotonic()
    while time.monotonic() - started < START_S:
        said = log.read_text("utf-8", errors="replace")
        if found := re.search(r"Serving .* on (http://\S+)", said):
            return found[1]
        if process.poll() is not None:
            raise ServerError(f"serve: the server ended before it was ready:\n{said.strip()}")
        time.sleep(0.2)
    raise ServerError(f"serve: the server was not ready within {START_S:.0f} s:\n{said.strip()}")
