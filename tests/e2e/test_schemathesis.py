"""What /openapi.json says, held against the server by schemathesis: each answer of each route to all that it allows."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Server
from tests.service.test_clients import CLIENTS

pytestmark = pytest.mark.slow

CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = [200, 400, 404]
"""
"""A schema cannot say that a text fits the context, which fields exclude each other (400), or what is served (404)."""

NUM_EXAMPLES = int(os.environ.get("GROUNDUP_EXAMPLES", "3"))
"""Requests made up for each operation, beside those that try each limit in the description. By hand: 500."""


@pytest.mark.timeout(600)
def test_the_server_does_what_its_description_says(server: Server, tmp_path: Path) -> None:
    program = CLIENTS / "bin" / "schemathesis"
    if not program.exists():
        pytest.skip("schemathesis is not installed; `make clients` does it")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    flags = ["--max-examples", str(NUM_EXAMPLES), "--seed", "1", "--request-timeout", "120", "--no-color"]
    command = [program, "--config-file", config, "run", f"{server.url}/openapi.json", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert re.search(r"Tested: \d\d", done.stdout), done.stdout[-2000:]
    assert server.client.get("/readyz").status_code == 200
