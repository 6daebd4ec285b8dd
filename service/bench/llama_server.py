"""llama.cpp's server on the same weights, for the comparison over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from model.config import PRESETS
from service.bench.gguf_file import write_gguf
from service.bench.over_http import Server, running
from service.settings import BenchSettings


@contextmanager
def llama_serving(program: Path, checkpoint: Path, settings: BenchSettings, slots: int | None) -> Iterator[Server]:
    """Serve a checkpoint with a number of slots, each with room for one stream; None leaves everything to the program.

    Raises:
        RuntimeError: the server ended or said nothing before it was ready.
    """
    file = checkpoint.parent / f"{checkpoint.name}-q8_0.gguf"
    if not file.exists():
        write_gguf(checkpoint, file)
    flags: dict[str, object] = {"model": file, "host": "127.0.0.1", "port": 0}
    if slots is not None:
        context = min(PRESETS[settings.preset].block_size, settings.prompt_tokens + settings.new_tokens + 16)
        threads = torch.get_num_threads()
        flags |= {"parallel": slots, "ctx-size": slots * context, "threads": threads, "threads-batch": threads}
    command = [str(program), *(str(part) for name, value in flags.items() for part in (f"--{name}", value))]
    log = checkpoint.parent / f"llama-server-{slots or 'as-it-is'}.log"
    with running(command, log, r"listening on http://\S+?:(\d+)") as (process, port):
        yield Server(f"llama.cpp q8_0, {slots or 'its own number of'} slots", process, port, "any")
