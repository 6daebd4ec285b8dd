"""What `groundup serve` makes of its settings before any process starts."""

import socket
from pathlib import Path

import pytest

from service.server import listen, make_workers, welcome
from service.settings import ServiceSettings
from service.web.catalog import load_models


def settings_for(folder: Path, *names: str) -> ServiceSettings:
    return ServiceSettings.model_validate({"checkpoints": [folder / name for name in names]})


def test_models_that_generate_share_a_worker_and_classifiers_another(tiny_checkpoints: Path) -> None:
    settings = settings_for(tiny_checkpoints, "tiny-spam", "tiny-base", "tiny-chat")
    workers = make_workers(load_models(settings), settings)
    assert [worker.name for worker in workers] == ["generate", "classify"]


def test_what_is_not_served_gets_no_worker_and_no_call(tiny_checkpoints: Path) -> None:
    settings = settings_for(tiny_checkpoints, "tiny-spam")
    models = load_models(settings)
    assert [worker.name for worker in make_workers(models, settings)] == ["classify"]
    text = welcome(models, "127.0.0.1", 8123)
    assert text.count("curl http://localhost:8123/") == 1
    assert "/classify" in text


def test_the_welcome_fits_one_screen(tiny_checkpoints: Path) -> None:
    models = load_models(settings_for(tiny_checkpoints, "tiny-base", "tiny-chat", "tiny-spam"))
    text = welcome(models, "box.example", 80)
    assert text.count("curl http://box.example:80/") == 3
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 110


def test_port_0_is_some_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused_by_its_flags(host: str) -> None:
    with pytest.raises(ValueError, match=f"--host {host} --port 0: "):
        listen(host, 0)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="choose another"):
        listen("127.0.0.1", taken.getsockname()[1])
