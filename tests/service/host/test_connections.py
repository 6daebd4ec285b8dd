"""Clients that send too much, too little or no HTTP at all, against a real socket."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.program import Program, poll, run_program

pytestmark = pytest.mark.slow

REQUEST = b"GET /count?n=1 HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = {"max_head_bytes": 4096, "receive_timeout_s": 0.5, "drain_delay_s": 0}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The scripted server with limits that are quickly reached."""
    flags = [f"{name}={value}" for name, value in LIMITS.items()]
    log = tmp_path_factory.mktemp("connections") / "log"
    with run_program("-m", "tests.service.host.scripted_server", "plain", *flags, log=log) as started:
        started.wait_for("ready")
        yield started


@contextmanager
def connected(program: Program) -> Iterator[socket.socket]:
    port = int(program.wait_for(r"port (\d+)")[1])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def read_answer(connection: socket.socket, number: int = 1) -> bytes:
    """What comes until that many answers in chunks are complete."""
    answer = b""
    while answer.count(b"\r\n0\r\n\r\n") < number:
        part = connection.recv(1 << 16)
        assert part, f"closed after {answer!r}"
        answer += part
    return answer


def num_open(program: Program) -> int:
    return sum(each.status == "ESTABLISHED" for each in program.http.net_connections("tcp"))


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def error_in(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: req_" in head
    return int(head.split()[1]), json.loads(content)["error"]


@pytest.mark.parametrize(
    "garbage", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 99]
)
def test_what_is_no_http_gets_the_error_object(program: Program, garbage: bytes) -> None:
    with connected(program) as connection:
        connection.sendall(garbage)
        status, error = error_in(read_all(connection))
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", None)


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * 5000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
    ],
    ids=["path", "many headers", "endless header", "endless headers"],
)
def test_a_head_that_is_too_long_is_refused(program: Program, flood: bytes) -> None:
    with connected(program) as connection:
        connection.sendall(flood)
        status, error = error_in(read_all(connection))
    assert (status, error["code"]) == (431, "request_too_large")


def test_a_head_may_be_as_long_as_the_limit_and_each_request_has_it_anew(program: Program) -> None:
    with connected(program) as connection:
        for _ in range(3):
            connection.sendall(REQUEST[:-2] + b"a: " + b"b" * 3000 + b"\r\n\r\n")
            assert read_answer(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("num_before", [1, 2])
def test_what_came_before_a_head_is_not_part_of_it(program: Program, num_before: int) -> None:
    with_body = REQUEST.removesuffix(b"\r\n") + b"Content-Length: 6000\r\n\r\n" + b"b" * 6000
    with connected(program) as connection:
        connection.sendall(with_body * num_before + REQUEST[:30])
        assert read_answer(connection, num_before).count(b"HTTP/1.1 200 OK") == num_before
        connection.sendall(REQUEST[30:])
        assert read_answer(connection).startswith(b"HTTP/1.1 200")


def test_a_head_behind_another_request_is_refused_all_the_same_if_it_does_not_end(program: Program) -> None:
    with connected(program) as connection:
        connection.sendall(REQUEST + REQUEST[:-2] + b"a: ")
        assert read_answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"b" * 5000)
        status, error = error_in(read_all(connection))
    assert (status, error["code"]) == (431, "request_too_large")


@pytest.mark.parametrize(
    "half",
    [b"", b"GET /co", b"GET /count HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_half_a_request_is_not_waited_for_for_ever(program: Program, half: bytes) -> None:
    with connected(program) as connection:
        started_s = time.monotonic()
        connection.sendall(half)
        read_all(connection)
        assert time.monotonic() - started_s > 0.4
    poll(lambda: not num_open(program), 10, "a socket stays open")


def test_a_long_answer_is_not_cut_by_a_next_request_that_is_late(program: Program) -> None:
    with connected(program) as connection:
        connection.sendall(b"GET /count?n=100 HTTP/1.1\r\nHost: x\r\n\r\nGET /co")
        answer = read_all(connection)
    assert b"\r\n100\n" in answer
    assert answer.endswith(b"0\r\n\r\n")


def test_a_connection_that_is_kept_alive_is_not_late(program: Program) -> None:
    with connected(program) as connection:
        for _ in range(2):
            connection.sendall(REQUEST)
            assert read_answer(connection).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)


def test_who_asks_for_a_websocket_is_answered_over_http(program: Program) -> None:
    """There, no route, no key and no limit of ours would be known."""
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    )
    with connected(program) as connection:
        connection.sendall(REQUEST.removesuffix(b"\r\n") + upgrade)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 OK\r\n")
