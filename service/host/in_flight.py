"""How many requests are being answered right now: counted in the HTTP process, read by the main one."""

import multiprocessing

from starlette.types import ASGIApp, Receive, Scope, Send


class InFlight:
    """A number in memory that the main process shares with its one HTTP process, the only writer."""

    def __init__(self) -> None:
        self._count = multiprocessing.get_context("spawn").RawValue("q", 0)

    @property
    def count(self) -> int:
        return int(self._count.value)

    def add(self, change: int) -> None:
        """Count requests that begin (1) or end (-1)."""
        self._count.value += change


class CountInFlight:
    """Middleware around all others: a request is in flight until the last byte of its answer is handed over."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._in_flight.add(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight.add(-1)
