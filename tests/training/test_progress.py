import pytest

from training.progress import Progress


def test_the_line_shows_loss_validation_loss_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4) as progress:
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
        progress.validated(2.5)
        progress.advance(loss=3.0, num_tokens=500, seconds=0.25)
    line = capsys.readouterr().err
    assert "boats" in line
    assert "2/4" in line
    assert "loss 3.000, valid 2.500, 2,000 tokens/s" in line
    assert "<" in line  # time gone < time left


def test_a_resumed_run_starts_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("boats", steps=4, done=3) as progress:
        progress.advance(loss=1.0, num_tokens=1, seconds=1.0)
    assert "100%" in capsys.readouterr().err
