import logging

import pytest
import torch

from training.machine.hardware import Meter
from training.run.progress import AboveTheBar, Progress


def test_the_line_shows_loss_validation_loss_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4) as progress:
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
        progress.validated(2.5)
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
    line = capsys.readouterr().err
    assert "boats" in line
    assert "2/4" in line
    assert "loss 3.000, valid 2.500, 2,000 tokens/s" in line
    assert "MFU" not in line
    assert "<" in line  # time gone < time left


def test_a_meter_adds_utilization_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(flops_per_token=10, peak_flops=40_000.0, device=torch.device("cpu"))
    with Progress("boats", steps=4, meter=meter) as progress:
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
    line = capsys.readouterr().err
    assert "2,000 tokens/s, MFU 50.0%, " in line
    assert "GiB" in line


def test_the_speed_is_that_of_the_recent_steps() -> None:
    with Progress("boats", steps=200, is_shown=False) as progress:
        progress.advance(loss=3.0, num_tokens=100, seconds=50.0)  # the first step compiles
        for _ in range(150):
            progress.advance(loss=3.0, num_tokens=100, seconds=0.1)
        assert progress.tokens_per_s == pytest.approx(1000, rel=0.2)  # the mean of all would be 234


def test_only_one_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4, is_shown=False) as progress:
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
    assert capsys.readouterr().err == ""


def test_a_resumed_run_starts_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4, done=3) as progress:
        progress.advance(loss=1.0, num_tokens=1, seconds=1.0)
    assert "100%" in capsys.readouterr().err


def test_messages_do_not_tear_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4) as progress:
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
        AboveTheBar().handle(logging.makeLogRecord({"msg": "ahoy"}))
    assert "\nahoy\n" in capsys.readouterr().err.replace("\r", "\n").replace("\x1b[A", "\n")
