"""The first minute: mistakes are named at once, the port answers early, and the calls we print work."""

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Server
from tests.program import run_program

pytestmark = pytest.mark.slow


def fail_to_serve(log: Path, *args: str) -> tuple[int, str]:
    with run_program("-m", "groundup", "serve", *args, log=log) as program:
        return program.wait(60), log.read_text()


def test_mistakes_end_in_one_line_and_exit_status_2(tiny_checkpoints: Path, tmp_path: Path) -> None:
    base = str(tiny_checkpoints / "tiny-base")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for args, expected in [
            ([str(tmp_path / "absent")], "no such directory"),
            ([base, base], "two checkpoints are named 'tiny-base'"),
            ([base, "--default-model", "other"], "--default-model: 'other' is none of tiny-base"),
            ([base, "--port", port], f"--port {port}: Address already in use"),
        ]:
            status, output = fail_to_serve(tmp_path / "log", *args)
            assert (status, len(output.splitlines())) == (2, 1), output
            assert output.startswith("error: ")
            assert expected in output


def test_broken_weights_end_the_service_before_it_is_ready(tiny_checkpoints: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_checkpoints / "tiny-base", tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, output = fail_to_serve(tmp_path / "log", str(broken), "--port", "0")
    assert status == 1
    assert "model.safetensors" in output
    assert "worker generate could not start" in output
    assert "Serving" not in output


def test_the_calls_it_prints_work(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    calls = re.findall(r"^(curl (?:.*\\\n)+.*)$", server.program.log.read_text(), re.MULTILINE)
    assert len(calls) == 3
    for call in calls:
        done = subprocess.run(["sh", "-c", call + " --fail --silent"], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, call
        assert b'"object"' in done.stdout
