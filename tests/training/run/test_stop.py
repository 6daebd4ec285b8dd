import os
import signal
from collections.abc import Iterator

import pytest

from training.run.stop import StoppedError, StopRequest, stopping_at_once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_flag(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), number)
        assert stop.is_set


@pytest.fixture
def _python_interrupts() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a shell takes from programs that it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_python_interrupts")
def test_the_second_interrupt_is_an_interrupt() -> None:
    with StopRequest(echo_s=0) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_echo_of_the_first_signal_is_no_second_one() -> None:
    with StopRequest(echo_s=60) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_outside_the_loop_is_raised_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_at_once():
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set
        with pytest.raises(StoppedError):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # an echo
    assert signal.getsignal(signal.SIGTERM) is before
