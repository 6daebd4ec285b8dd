"""The main process: starts the HTTP process and the workers, watches over them, and ends them in good order.

LitServe gives the app, the launch of processes and the worker's entry; its queues, its loop and its own supervision
are replaced. Everything private of LitServe that we use or replace is in this file and pinned by a contract test. It
knows no OpenAI and no tensors.
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI
from litserve import LitServer

from service import metrics
from service.host import messages
from service.host.bus import Bus, Inbox, WorkerChannel
from service.host.connections import Connection
from service.host.drain import Drain, Phase
from service.host.in_flight import CountInFlight, InFlight
from service.host.lifeline import END_HTTP, die_with_parent, obey_only_main
from service.host.ward import Ward
from service.host.workers import Worker
from service.settings import ServiceSettings

logger = logging.getLogger(__name__)

_TICK_S = 0.5
_BUSY_TICK_S = 0.05
_GOODBYE_S = 2
"""Time for the HTTP process to close its connections once nothing is in flight."""


class Supervisor(LitServer):  # type: ignore[misc]  # LitServe carries no types
    """LitServe's server with one HTTP process and one process for each worker."""

    def __init__(self, workers: Sequence[Worker[Any]], settings: ServiceSettings) -> None:
        super().__init__(list(workers), accelerator="cpu", devices=1, disable_openapi_url=True)
        self.app.router.routes.clear()  # LitServe's own; ours are the web's to install
        self.app.user_middleware.clear()  # its compression would hold streams back
        self.uvicorn_graceful_timeout = _GOODBYE_S
        self._settings = settings
        self._directory = Path(tempfile.mkdtemp(prefix="groundup-"))
        self._wards = [Ward(worker, WorkerChannel(worker.name, self._directory)) for worker in workers]
        self._http: BaseProcess | None = None
        self._in_flight = InFlight()
        self._drain = Drain(self._announce, delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
        self._wakeup, self._wakeup_end = os.pipe()
        self._signals: list[int] = []
        self._exit_code = 0

    @property
    def channels(self) -> Mapping[str, WorkerChannel]:
        """The way to each worker, by its name."""
        return {ward.name: ward.channel for ward in self._wards}

    def run(self, inbox: Inbox, listener: socket.socket, on_ready: Callable[[], None]) -> int:
        """Serve until a signal or a failure; return the exit code.

        Args:
            inbox: the HTTP side; started in the HTTP process.
            listener: a bound socket; it accepts connections before the weights are loaded.
            on_ready: called here, once, when every worker is up.
        """
        self._transport = Bus(self._directory, num_consumers=1, inbox=inbox)
        self.litapi_request_queues = {ward.worker.api_path: ward.channel for ward in self._wards}
        self.workers_setup_status: dict[str, str] = {}  # LitServe wants it; heartbeats tell us more
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note_signal)
        try:
            for ward in self._wards:
                self._start(ward)
            self._http = self._start_http(listener)
            listener.close()  # the HTTP process has its own; here it would only keep latecomers waiting
            self._watch(self._http, on_ready)
        finally:
            self._end_processes()
        return self._exit_code

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Surround the life of the HTTP process, inside it."""
        die_with_parent()
        obey_only_main()
        async with super().lifespan(app):
            yield

    def _start_http(self, listener: socket.socket) -> BaseProcess:
        self.app.add_middleware(CountInFlight, in_flight=self._in_flight)
        processes: dict[int, BaseProcess] = self._start_server(
            listener.getsockname()[1],
            1,
            "warning",
            [listener],
            "process",
            log_config=None,
            access_log=False,
            timeout_keep_alive=self._settings.keep_alive_s,
            http=partial(
                Connection,
                max_head_bytes=self._settings.max_head_bytes,
                receive_timeout_s=self._settings.receive_timeout_s,
            ),
        )
        return processes[0]

    def _watch(self, http: BaseProcess, on_ready: Callable[[], None]) -> None:
        is_ready = False
        while not self._drain.is_over:
            self._sleep(http)
            self._obey_signals()
            for ward in self._wards:
                self._tend(ward)
            if not is_ready and all(ward.is_up for ward in self._wards):
                is_ready = True
                on_ready()
            if not http.is_alive():
                self._note_http_death(http)
                return
            self._drain.advance(self._in_flight.count)

    def _sleep(self, http: BaseProcess) -> None:
        """Wait for a process to end, for a signal, or for the next look at the clock."""
        sentinels = [http.sentinel, *(ward.process.sentinel for ward in self._wards if ward.process is not None)]
        is_calm = self._drain.phase is None and all(ward.is_up for ward in self._wards)
        ready = wait([self._wakeup, *sentinels], _TICK_S if is_calm else _BUSY_TICK_S)
        if self._wakeup in ready:
            os.read(self._wakeup, 1024)

    # Workers

    def _start(self, ward: Ward) -> None:
        if ward.num_deaths:
            ward.worker.start_empty()
        ward.channel.forget_heartbeat()
        (process,) = self.launch_inference_worker(ward.worker)
        ward.born(process)

    def _tend(self, ward: Ward) -> None:
        if ward.process is None:
            if ward.is_due and self._drain.phase is None:
                metrics.WORKER_RESTARTS.labels(ward.name).inc()
                self._start(ward)
        elif not ward.process.is_alive():
            self._bury(ward, ward.process)
        elif (age_s := ward.channel.heartbeat_age_s) is not None:
            metrics.HEARTBEAT_AGE.labels(ward.name).set(age_s)
            if age_s > self._settings.engine_hang_s:
                logger.error("worker %s has not moved for %.1f s: killing it", ward.name, age_s)
                ward.process.kill()
                ward.process.join(_GOODBYE_S)  # its pipes close before it is gone: waiting for those would spin

    def _bury(self, ward: Ward, process: BaseProcess) -> None:
        self._transport.broadcast(messages.WorkerDown(ward.name, process.pid or 0))
        logger.error("worker %s (pid %s) ended with exit code %s", ward.name, process.pid, process.exitcode)
        metrics.forget_process(process.pid or 0)
        ward.died()
        if not ward.has_worked:
            self._fail(f"worker {ward.name} could not start; the lines above say why")
        elif ward.num_deaths > self._settings.max_restarts:
            self._fail(f"worker {ward.name} dies again and again; it is not restarted any more")

    # The end

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals.append(signum)
        os.write(self._wakeup_end, b"!")

    def _obey_signals(self) -> None:
        while self._signals:
            signum = self._signals.pop(0)
            if self._drain.phase is not None:
                self._drain.begin("abort")
            elif signum == signal.SIGTERM:
                self._drain.begin("unready")
            else:  # no load balancer sits at the other end of a Ctrl-C
                self._drain.begin("reject")

    def _announce(self, phase: Phase) -> None:
        logger.info("shutting down: %s", phase)
        metrics.DRAINING.set(1)
        self._transport.broadcast(messages.Drain(phase))

    def _fail(self, reason: str) -> None:
        if self._drain.phase is None:
            logger.error("%s", reason)
            self._exit_code = 1
            self._drain.begin("abort")

    def _note_http_death(self, http: BaseProcess) -> None:
        if self._drain.phase is None:  # else it was told to end by whoever told us
            logger.error("the HTTP process ended with exit code %s", http.exitcode)
            self._exit_code = 1

    def _end_processes(self) -> None:
        for ward in self._wards:
            if ward.process is not None:
                ward.process.kill()
                ward.process.join()
        if self._http is not None:
            if self._http.is_alive() and self._http.pid is not None:
                os.kill(self._http.pid, END_HTTP)
            self._http.join(_GOODBYE_S + 1)
            self._http.kill()
            self._http.join()
        shutil.rmtree(self._directory, ignore_errors=True)
