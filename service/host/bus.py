"""The wires between processes: ZeroMQ sockets under one private directory, typed msgpack on them.

One pull socket for each worker (`WorkerChannel`) and one for each HTTP process (`Bus`). It does not know what the
messages mean. Sockets are made on first use in the process that uses them: a ZeroMQ context must not cross a fork.
"""

import asyncio
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import zmq
import zmq.asyncio
from litserve.transport.base import MessageTransport

from service.host.messages import ToHttp, ToWorker

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_decode_to_http = msgspec.msgpack.Decoder(ToHttp).decode

SocketType = TypeVar("SocketType", bound="zmq.Socket[Any]")

_RECONNECT_MS = 10


class Inbox(Protocol):
    """The HTTP side of a request, as the bus sees it. Both methods run on the event loop of the HTTP process."""

    def start(self, consumer: int) -> None:
        """Begin: this is HTTP process number `consumer`."""

    def on_message(self, message: ToHttp) -> None:
        """Take one message; must not block."""


class WorkerChannel:
    """HTTP process to one worker, and that worker's heartbeat for everyone to read.

    Made in the main process, which every other process is a child of.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._address = f"ipc://{directory}/worker-{name}"
        self._last_beat = multiprocessing.get_context("spawn").RawValue("d", 0.0)
        self._sockets: dict[int, zmq.Socket[bytes]] = {}

    def __getstate__(self) -> Mapping[str, object]:
        return {**self.__dict__, "_sockets": {}}

    # HTTP process

    def send(self, message: ToWorker) -> None:
        """Hand a message to the worker; never blocks."""
        if os.getpid() not in self._sockets:
            self._sockets[os.getpid()] = _connect(self._address)
        self._sockets[os.getpid()].send(_encode(message))

    def reset(self) -> None:
        """Forget messages that a dead worker has not taken, lest its successor finds them."""
        socket = self._sockets.pop(os.getpid(), None)
        if socket is not None:
            socket.close(linger=0)

    # Worker

    def bind(self) -> None:
        """Become the reading end."""
        self._sockets[os.getpid()] = _bind(zmq.Context.instance(), self._address)

    def receive(self, timeout_s: float) -> list[ToWorker]:
        """Return everything that has arrived; wait up to `timeout_s` for the first message."""
        socket = self._sockets[os.getpid()]
        messages: list[ToWorker] = []
        if socket.poll(math.ceil(timeout_s * 1000)):
            while (frame := _receive_now(socket)) is not None:
                messages.append(_decode_to_worker(frame))
        return messages

    def beat(self) -> None:
        """Say that the worker's loop is alive."""
        self._last_beat.value = time.monotonic()

    # Main and HTTP process

    @property
    def heartbeat_age_s(self) -> float | None:
        """Seconds since the last beat; None before the first one, while the worker loads."""
        last_beat: float = self._last_beat.value
        return None if last_beat == 0.0 else max(0.0, time.monotonic() - last_beat)

    def forget_heartbeat(self) -> None:
        """Begin a new life: the worker is about to be started again."""
        self._last_beat.value = 0.0


class Bus(MessageTransport):  # type: ignore[misc]  # LitServe carries no types
    """Workers and the main process to the HTTP processes; takes the place of LitServe's own queues."""

    def __init__(self, directory: Path, num_consumers: int, inbox: Inbox | None = None) -> None:
        """`inbox` is needed in the HTTP process only, and never travels to a worker."""
        self._addresses = [f"ipc://{directory}/http-{consumer}" for consumer in range(num_consumers)]
        self._inbox = inbox
        self._outgoing: dict[tuple[int, int], zmq.Socket[bytes]] = {}
        self._incoming: zmq.asyncio.Socket | None = None

    def __getstate__(self) -> Mapping[str, object]:
        return {**self.__dict__, "_inbox": None, "_outgoing": {}, "_incoming": None}

    def send(self, message: ToHttp, consumer: int) -> None:
        """Hand a message to one HTTP process; never blocks."""
        key = (os.getpid(), consumer)
        if key not in self._outgoing:
            self._outgoing[key] = _connect(self._addresses[consumer])
        self._outgoing[key].send(_encode(message))

    def broadcast(self, message: ToHttp) -> None:
        """Hand a message to every HTTP process."""
        for consumer in range(len(self._addresses)):
            self.send(message, consumer)

    def close(self, **_: object) -> None:
        """Close this process' sockets; what is still under way is lost."""
        for key in [key for key in self._outgoing if key[0] == os.getpid()]:
            self._outgoing.pop(key).close(linger=0)
        if self._incoming is not None:
            self._incoming.context.destroy(linger=0)
            self._incoming = None

    async def areceive(self, consumer_id: int = 0, timeout: int | None = None) -> Any:
        """Deliver messages to the inbox for ever. LitServe runs this as a task in each HTTP process."""
        assert self._inbox is not None
        if self._incoming is None:
            self._incoming = _bind(zmq.asyncio.Context(), self._addresses[consumer_id])
            self._inbox.start(consumer_id)
        while True:
            frame = await self._incoming.recv()
            try:
                self._inbox.on_message(_decode_to_http(frame))
            except Exception:
                logger.exception("a message could not be handled")
            # A receive that needs no wait does not yield, and a fast engine would starve the other tasks.
            await asyncio.sleep(0)


def _connect(address: str) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.connect(address)
    return socket


def _bind(context: "zmq.Context[SocketType]", address: str) -> SocketType:
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(address)
    return socket


def _receive_now(socket: "zmq.Socket[bytes]") -> bytes | None:
    try:
        return socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
