"""A real Prometheus scrapes a real server, and finds the numbers under the names that dashboards ask for."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Server
from tests.program import poll

pytestmark = pytest.mark.slow

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: groundup
    static_configs: [{{targets: ["{target}"]}}]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_prometheus_finds_generated_tokens_under_their_public_name(server: Server, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(target=server.url.removeprefix("http://")))
    address = f"127.0.0.1:{free_port()}"
    body = {"model": "tiny-base", "prompt": "A small boat", "max_tokens": 7, "ignore_eos": True}
    assert server.client.post("/v1/completions", json=body).status_code == 200
    flags = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([prometheus, *flags, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:

        def ask() -> float | None:
            try:
                query = {"query": 'vllm:generation_tokens_total{model_name="tiny-base"}'}
                answer = httpx.get(f"http://{address}/api/v1/query", params=query, timeout=5)
                found = json.loads(answer.text)["data"]["result"]
            except (httpx.TransportError, ValueError, KeyError):  # it is still starting
                return None
            return float(found[0]["value"][1]) if found else None

        num_tokens = poll(ask, 60, "Prometheus did not find the metric")
    finally:
        process.kill()
        process.wait()
    assert num_tokens >= 7
