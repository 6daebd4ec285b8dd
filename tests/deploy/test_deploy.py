"""The files in deploy/ and the Dockerfile agree with the service and with each other."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import metrics
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy/compose.yaml").read_text()))


def test_prometheus_accepts_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    subprocess.run([promtool, "check", "config", ROOT / "deploy/prometheus.yml"], check=True, timeout=30)


def test_prometheus_scrapes_the_service_that_compose_starts(compose: dict[str, Any]) -> None:
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert name in compose["services"]
    assert f"{port}:{port}" in compose["services"][name]["ports"]
    assert f"GROUNDUP_PORT={port}" in (ROOT / "Dockerfile").read_text()


def test_the_grace_period_is_longer_than_draining(compose: dict[str, Any]) -> None:
    settings = ServiceSettings(checkpoints=(ROOT,))
    grace_s = int(compose["services"]["groundup"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.drain_delay_s + settings.drain_timeout_s


def test_the_image_copies_only_what_exists_and_is_not_ignored() -> None:
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_copies_every_package_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert all(f"COPY {package} ./{package}" in dockerfile for package in packages)


def test_queries_in_the_readme_name_metrics_that_exist() -> None:
    defined = Path(metrics.__file__).read_text()
    for name in re.findall(r"vllm:\w+", (ROOT / "deploy/README.md").read_text()):
        assert f'"{name.removesuffix("_bucket").removesuffix("_total")}"' in defined, name
