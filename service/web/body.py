"""A request body, from the socket to a Python object: bounded, strictly JSON, always an object.

Stricter than `json.loads`: no NaN, no number that overflows a float, no lone surrogates, UTF-8 only. It does not know
what the fields mean.
"""

import asyncio
import json
import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

from starlette.types import Receive

from service.web.errors import BodyTooLarge, ClientGone, MalformedJson

MAX_DEPTH = 128
"""Deepest nesting of arrays and objects; far below what would exhaust the stack of code that walks them."""

_PATIENCE_S = 2.0

_MAX_EXACT_DIGITS = 308
"""Integers with fewer digits than this always fit into a float."""


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """Collect the body of a request.

    Raises:
        BodyTooLarge: it has more than `max_bytes`.
        ClientGone: the client left in the middle of it.
    """
    chunks: list[bytes] = []
    size_bytes = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            await discard(receive)
            raise BodyTooLarge(max_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def discard(receive: Receive) -> None:
    """Let a client send what nobody wants, for a while: one that is cut off while it sends never sees the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while (await receive()).get("more_body"):
                pass


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        MalformedJson: whatever is wrong with it.
    """
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_int
        )
        if b"\\ud" in body.lower():
            _refuse_lone_surrogates(value)
        if isinstance(value, dict) and body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            _refuse_depth(value)
    except (ValueError, RecursionError):
        raise MalformedJson from None
    if not isinstance(value, dict):
        raise MalformedJson
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_float(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError("number too large")
    return number


def _parse_int(literal: str) -> int:
    if len(literal) > _MAX_EXACT_DIGITS:
        raise ValueError("integer too large")
    return int(literal)


def _refuse_depth(root: dict[str, Any]) -> None:
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value) if isinstance(child, dict | list)]
    if level:
        raise ValueError("nesting too deep")


def _children(container: Any) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container


def _refuse_lone_surrogates(value: object) -> None:
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError is a ValueError
