"""The catalogue of errors over a real socket: each row is sent as it is to the scripted service, and a few that need
settings, keys, limits or a service that is not ready yet.
"""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Serve, Server, start_server
from tests.program import poll, run_program
from tests.service.web import test_constraints, test_tools
from tests.service.web.test_error_catalogue import ALL, BASE, CHAT, COMPLETIONS, MALFORMED, TALK, TEXT, Row, check

pytestmark = pytest.mark.slow

STRICT = {"strict_params": True, "max_tokens_policy": "clamp", "max_embedding_items": 4, "max_embedding_tokens": 17}
"""Settings that rows ask for and that do not get into each other's way."""

PLAIN_ROWS = [row for row in ALL if not row.settings]
STRICT_ROWS = [row for row in ALL if row.settings and row.settings.items() <= STRICT.items()]


@pytest.fixture(scope="module")
def strict(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that refuses more, and takes small bodies only."""
    folder = tmp_path_factory.mktemp("strict")
    settings = STRICT | {"max_body_bytes": 5000}
    (folder / "run.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    with start_server(tiny_checkpoints, folder / "server.log", config=folder / "run.toml") as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, each named and spelled alike: `free`, `bound` to a model, `rare` in requests, `short`."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text("\n".join(f"{name}:{name}" for name in ("free", "bound", "rare", "short")))
    (folder / "admin").write_text("root")
    (folder / "limits.toml").write_text(
        'key_limits.bound.models = ["tiny-chat"]\nkey_limits.rare.requests_per_minute = 1\n'
        "key_limits.short.tokens_per_minute = 20\n"
        "embeddings_accept_token_ids = false\nmetrics_require_key = true\n"
    )
    files = {"api_keys_file": folder / "keys", "admin_key_file": folder / "admin", "config": folder / "limits.toml"}
    with start_server(tiny_checkpoints, folder / "server.log", **files) as running:
        yield running


def named(row: Row) -> str:
    return f"{row.path}-{row.code}-{row.param}"


def send(server: Server, row: Row) -> None:
    response = server.client.post(row.path, json=row.body)
    assert row.message in check(response, row.status, row.code, row.param)


@pytest.mark.parametrize("row", PLAIN_ROWS, ids=named)
def test_each_row_of_the_catalogue(server: Server, row: Row) -> None:
    send(server, row)


@pytest.mark.parametrize("row", STRICT_ROWS, ids=named)
def test_each_row_that_needs_a_setting(strict: Server, row: Row) -> None:
    send(strict, row)


def test_no_row_is_left_out(keyed: Server) -> None:
    (row,) = [row for row in ALL if row not in PLAIN_ROWS and row not in STRICT_ROWS]
    response = keyed.client.post(row.path, json=row.body, headers={"x-api-key": "free"})
    assert row.message in check(response, row.status, row.code, row.param)


@pytest.mark.parametrize(("fields", "code", "param"), test_constraints.REFUSED)
def test_forms_of_answers_that_cannot_be_enforced(server: Server, fields: Any, code: str, param: str) -> None:
    check(server.client.post(COMPLETIONS, json=BASE | fields), 400, code, param)


@pytest.mark.parametrize(("fields", "code", "param"), test_tools.REFUSED)
def test_calls_that_cannot_be_demanded(server: Server, fields: Any, code: str, param: str) -> None:
    check(server.client.post(CHAT, json=TALK | fields), 400, code, param)


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json(server: Server, content: bytes) -> None:
    response = server.client.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    check(response, 400, None, None)


def test_bodies_that_are_too_large_with_and_without_a_length(strict: Server) -> None:
    for content in (b"x" * 6000, iter([b" " * 1000] * 20)):
        response = strict.client.post(COMPLETIONS, content=content)
        check(response, 413, "request_too_large", None)
        assert response.headers["connection"] == "close"


def test_content_types_paths_and_methods(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = server.client.post(COMPLETIONS, content=b"{}", headers={"content-type": kind})
        check(response, 415, "unsupported_media_type", None)
    for path in ("/v1/x", "/docs", "/v1/moderations", "/admin/models"):
        assert f"(POST {path})" in check(server.client.post(path, json={}), 404, "unknown_url", None)
    for method, path, allowed in [
        ("GET", COMPLETIONS, "POST"),
        ("DELETE", "/v1/models/tiny-base", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
    ]:
        response = server.client.request(method, path)
        check(response, 405, "method_not_supported", None)
        assert response.headers["allow"] == allowed
    check(server.client.get("/v1/models/org/nope"), 404, "model_not_found", "model")


PUBLIC = ("/health", "/v1/health", "/livez", "/readyz")


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/classify", "/v1/models", "/tokenize", "/metrics", "/nope"])
def test_no_key_and_a_wrong_key(keyed: Server, path: str) -> None:
    for headers, code in ({}, None), ({"authorization": "Bearer nope"}, "invalid_api_key"):
        response = keyed.client.get(path, headers=headers)
        check(response, 401, code, None)
        assert response.headers["www-authenticate"] == "Bearer"


def test_right_keys_in_both_spellings_and_paths_that_need_none(keyed: Server) -> None:
    for headers in ({"authorization": "Bearer free"}, {"x-api-key": "free"}):
        assert keyed.client.post(COMPLETIONS, json=BASE, headers=headers).status_code == 200
        assert keyed.client.get("/metrics", headers=headers).status_code == 200
    assert [keyed.client.get(path).status_code for path in PUBLIC] == [200] * len(PUBLIC)


def test_what_a_key_may_not_do(keyed: Server) -> None:
    check(keyed.client.get("/admin/models", headers={"x-api-key": "free"}), 403, "insufficient_permissions", None)
    assert keyed.client.get("/admin/models", headers={"x-api-key": "root"}).status_code == 200
    bound = {"x-api-key": "bound"}
    assert keyed.client.post(CHAT, json=TALK | {"max_tokens": 1}, headers=bound).status_code == 200
    for path, body in ((COMPLETIONS, BASE), ("/classify", TEXT), (CHAT, TALK | {"model": "tiny-base"})):
        check(keyed.client.post(path, json=body, headers=bound), 404, "model_not_found", "model")
    assert [card["id"] for card in keyed.client.get("/v1/models", headers=bound).json()["data"]] == ["tiny-chat"]


def test_limits_of_a_key(keyed: Server) -> None:
    rare, short = {"x-api-key": "rare"}, {"x-api-key": "short"}
    first, second = (keyed.client.post(COMPLETIONS, json=BASE, headers=rare) for _ in range(2))
    assert first.status_code == 200
    names = [f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")]
    assert [first.headers[name] for name in names[:2]] == ["1", "0"]
    assert all(name in second.headers for name in names)
    check(second, 429, "rate_limit_exceeded", None, type_="requests")
    assert 0 < int(second.headers["retry-after"]) <= 60
    assert int(second.headers["retry-after-ms"]) <= 60_000
    response = keyed.client.post(COMPLETIONS, json=BASE | {"max_tokens": 30}, headers=short)
    check(response, 429, "rate_limit_exceeded", None, type_="tokens")
    assert response.headers["x-ratelimit-limit-tokens"] == "20"
    assert response.headers["x-should-retry"] == "false"


def test_while_it_loads(tiny_checkpoints: Path, tmp_path: Path) -> None:
    """A worker that is stopped loads for ever; meanwhile the port answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    args = [str(tiny_checkpoints / "tiny-base"), "--port", str(port), "--num-threads", "1"]
    with run_program("-m", "groundup", "serve", *args, log=tmp_path / "log") as program:
        (worker,) = poll(lambda: program.workers, 60, "no worker")
        worker.send_signal(signal.SIGSTOP)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                poll(lambda: is_listening(client), 60, "nobody listens")
                for stream in (False, True):
                    response = client.post(COMPLETIONS, json=BASE | {"stream": stream})
                    check(response, 503, "model_loading", None, type_="server_error")
                    assert 0 < int(response.headers["retry-after"]) <= 60
                for path, status, said in [
                    ("/readyz", 503, "loading"),
                    ("/health", 503, "loading"),
                    ("/livez", 200, "ok"),
                ]:
                    probed = client.get(path)
                    assert (probed.status_code, probed.json()) == (status, {"status": said})
                worker.send_signal(signal.SIGCONT)
                poll(lambda: client.get("/readyz").status_code == 200, 120, "not ready")
                assert client.post(COMPLETIONS, json=BASE).status_code == 200
        finally:
            worker.send_signal(signal.SIGCONT)


def is_listening(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/livez"))
    except httpx.TransportError:
        return False


def test_overload_may_be_429(serve: Serve) -> None:
    with serve("tiny-base", overload_status=429, max_waiting_requests=1, max_waiting_tokens=50) as server:
        for changes in ({"n": 2}, {"prompt": [7] * 51}):
            response = server.client.post(COMPLETIONS, json=BASE | changes)
            check(response, 429, "server_overloaded", None, type_="server_error")
            assert 0 < int(response.headers["retry-after"]) <= 60


def test_values_are_echoed_in_part_only(server: Server) -> None:
    role = [{"role": "boss" * 100_000, "content": "x"}]
    for path, body in ((CHAT, TALK | {"messages": role}), (COMPLETIONS, BASE | {"model": "x" * 5000})):
        response = server.client.post(path, json=body)
        assert response.status_code in (400, 404)
        assert len(json.dumps(response.json())) < 600
