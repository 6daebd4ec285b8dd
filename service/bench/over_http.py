"""The same work through a real server in processes of its own, `groundup serve` first of all; streams from raw sockets.

The client shares the machine with the server, and one elsewhere would not: so it sleeps while events arrive, until the
kernel has the whole of a stream, and counts afterwards.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.settings import BenchSettings, NumberType

START_TIMEOUT_S = 300
STREAM_TIMEOUT_S = 600
WAKE_BYTES = 1 << 18
"""More than a stream has: only its end wakes the client."""


class Server:
    """A running server of OpenAI's completions."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", port: int, model: str) -> None:
        self.name = name
        self._process = process
        self._port = port
        self._model = model

    def run(self, prompts: Sequence[list[int]], num_new: int) -> float:
        """Stream one completion per prompt, all at once, and return the seconds until the last has ended."""
        bodies = [self._request(prompt_ids, num_new) for prompt_ids in prompts]
        started_s = time.perf_counter()
        streams = [self._open(body) for body in bodies]
        answers = [self._read(stream) for stream in streams]
        elapsed_s = time.perf_counter() - started_s
        for answer in answers:
            num_tokens = re.search(rb'"completion_tokens": ?(\d+)', answer)
            if num_tokens is None or int(num_tokens[1]) != num_new:
                raise RuntimeError(f"a stream did not bring {num_new} tokens: {answer[-400:]!r}")
        return elapsed_s

    def worker_bytes(self) -> int:
        """Return the memory of the largest process, without mapped files: the worker's."""
        return max(_anonymous_bytes(pid) for pid in _family(self._process.pid))

    def idle_cpu_share(self, seconds: float = 5.0) -> float:
        """Watch the idle server for a while; return CPU seconds per second, all processes together."""
        pids = list(_family(self._process.pid))
        before_s = sum(_cpu_s(pid) for pid in pids)
        time.sleep(seconds)
        return (sum(_cpu_s(pid) for pid in pids) - before_s) / seconds

    def _request(self, prompt_ids: list[int], num_new: int) -> bytes:
        body = {
            "model": self._model,
            "prompt": prompt_ids,
            "max_tokens": num_new,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + content

    def _open(self, request: bytes) -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self._port), timeout=STREAM_TIMEOUT_S)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * WAKE_BYTES)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WAKE_BYTES)
        stream.sendall(request)
        return stream

    def _read(self, stream: socket.socket) -> bytes:
        """Read to the end; the server closes the connection there, as it was asked to."""
        with stream:
            answer = bytearray()
            while part := stream.recv(WAKE_BYTES):
                answer += part
            return bytes(answer)


@contextmanager
def serving(path: Path, settings: BenchSettings, number_type: NumberType = "float32") -> Iterator[Server]:
    """Serve a checkpoint with our own server for as long as the block runs.

    Raises:
        RuntimeError: the server ended or said nothing before it was ready.
    """
    flags = {
        "port": 0,
        "drain-delay-s": 0,
        "max-num-seqs": max(settings.max_num_seqs, *settings.concurrency),
        "max-num-batched-tokens": settings.max_num_batched_tokens,
        "prefill-chunk-tokens": settings.prefill_chunk_tokens,
        "kv-cache-tokens": settings.kv_cache_tokens,
        "page-size": settings.page_size,
        "device": settings.device,
        "dtype": "float32" if number_type == "int8" else number_type,
        "quantize": "int8" if number_type == "int8" else None,
        "num-threads": settings.num_threads,
    }
    arguments = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    arguments += ["--compile"] if settings.compile else []
    command = [sys.executable, "-m", "groundup", "serve", str(path), *arguments]
    with running(command, path.parent / "server.log", r"on http://\S+?:(\d+)") as (process, port):
        yield Server(f"engine {number_type} over HTTP", process, port, path.name)


@contextmanager
def running(command: Sequence[str], log: Path, address: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run a server on a free port for as long as the block runs.

    Args:
        command: starts it.
        log: file for all it says.
        address: pattern of what it says when it is ready, with the port in a group.

    Raises:
        RuntimeError: the server ended or said nothing before it was ready.
    """
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, text=True) as process:
        try:
            yield process, _wait_for_port(process, log, address)
        finally:
            process.terminate()
            process.wait()


def _wait_for_port(process: "subprocess.Popen[str]", log: Path, address: str) -> int:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if match := re.search(address, log.read_text()):
            return int(match[1])
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready: {log.read_text()[-1000:]}")


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = after_name[11:13]  # proc(5): utime and stime, in clock ticks
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _anonymous_bytes(pid: int) -> int:
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0
