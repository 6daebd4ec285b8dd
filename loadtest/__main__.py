"""`python -m loadtest`: 60 s of load from 32 users, and a table of what they felt.

Against `--host URL`, or else against a server that it starts on a free port and stops afterwards. Exits with 1 if a
request failed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.report import plot, table

ROOT = Path(__file__).parents[1]
STARTUP_S = 180


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    if options.host:
        results = run_locust(options.host, options.users, options.seconds)
    else:
        with serve(
            options.checkpoints or sorted(config.parent for config in ROOT.glob("checkpoints/*/config.json"))
        ) as host:
            results = run_locust(host, options.users, options.seconds)
    print(table(results))
    if options.plot and not plot(results, options.plot):
        print("matplotlib is not installed: no plot", file=sys.stderr)
    return 1 if results["num_failures"] or not results["num_requests"] else 0


def run_locust(host: str, num_users: int, seconds: int) -> dict[str, object]:
    """Run the users for a while and return what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, "-m", "locust", "--locustfile", str(ROOT / "loadtest" / "locustfile.py")]
        command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"]
        command += ["--host", host, "--users", str(num_users), "--spawn-rate", str(num_users)]
        command += ["--run-time", f"{seconds}s", "--stop-timeout", "30", "--results", str(results)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=seconds + 120)
        loaded: dict[str, object] = json.loads(results.read_text())
        return loaded


@contextmanager
def serve(checkpoints: Sequence[Path]) -> Iterator[str]:
    """Start a server on a free port, wait until it is ready, yield its URL, and stop it."""
    if not checkpoints:
        sys.exit("error: there are no checkpoints to serve; train some with `make train`, or name a running server")
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "groundup", "serve", *map(str, checkpoints), "--port", "0"]
        server = subprocess.Popen([*command, "--drain-delay-s", "0"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _wait_until_ready(server, log.fileno())
        finally:
            server.terminate()
            server.wait(60)


def _wait_until_ready(server: "subprocess.Popen[bytes]", log: int) -> str:
    deadline_s = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline_s:
        output = Path(f"/proc/self/fd/{log}").read_text()
        found = re.search(r"^Serving .* on (http://\S+)$", output, re.MULTILINE)
        if found and _is_ready(found[1]):
            return found[1]
        if server.poll() is not None:
            sys.exit(f"error: the server ended early:\n{output}")
        time.sleep(0.2)
    sys.exit(f"error: the server was not ready after {STARTUP_S} s")


def _is_ready(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"{host}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="what to serve (default: all of checkpoints/)")
    parser.add_argument("--host", help="URL of a running server, instead of starting one")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the latencies into this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
