"""SIGTERM: what runs is finished, what comes late is refused, and the exit status is 0."""

import signal

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.streams import Stream, completion
from tests.program import poll

pytestmark = pytest.mark.slow


def test_a_running_stream_is_finished_and_late_requests_are_refused(serve: Serve) -> None:
    with serve("tiny-base", max_num_seqs=1, drain_delay_s=1, drain_timeout_s=60) as server:
        stream = Stream(server.url, completion(32))
        server.program.send(signal.SIGTERM)
        poll(lambda: server.client.get("/readyz").json() == {"status": "draining"}, 10, "still ready")
        assert server.client.get("/livez").status_code == 200
        early = server.client.post("/v1/completions", json={**completion(1), "max_tokens": 0})
        assert early.status_code == 200

        server.program.wait_for("shutting down: reject")
        late = server.client.post("/v1/completions", json=completion(1))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "server_shutting_down")
        assert late.headers["retry-after"] == "1"
        assert late.headers["connection"] == "close"

        *chunks, done = stream.join()
        assert done == "[DONE]"
        assert [chunk for chunk in chunks if "error" in chunk] == []
        endings = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
        assert sorted(choice["index"] for choice in endings) == list(range(32))
        assert server.program.wait() == 0


def test_a_stream_that_outlasts_the_grace_period_is_told_so(serve: Serve) -> None:
    with serve("tiny-base", max_num_seqs=1, drain_timeout_s=0.5) as server:
        stream = Stream(server.url, completion(400))
        server.program.send(signal.SIGTERM)
        *_, error, done = stream.join()
        assert (error["error"]["code"], done) == ("server_shutting_down", "[DONE]")
        assert server.program.wait() == 0
