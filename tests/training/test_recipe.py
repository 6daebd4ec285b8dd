"""What surrounds a run: how it may end."""

import signal
import time
from pathlib import Path

from tests.forked import Forked
from tests.program import poll
from training.config.run import RunConfig
from training.recipe import conduct
from training.run.folder import RunFolder


def evaluate_for_long(out: Path) -> None:
    """Be a run whose steps are done, and which is busy with what comes after them."""

    def work(folder: RunFolder) -> None:
        (folder.path / "snapshots" / "step-00000007").mkdir(parents=True)
        time.sleep(100)

    conduct(RunConfig(out=out, device="cpu"), work)


def test_a_run_that_is_told_to_stop_after_its_steps_ends_well_and_says_how_to_go_on(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    run = Forked(evaluate_for_long, out, log=log)
    poll((tmp_path / "out.run" / "snapshots" / "step-00000007").exists, 100, "no snapshot")
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 0, log.read_text()
    assert "stopped at step 7; the same command with --resume goes on" in log.read_text()
    assert (tmp_path / "out.run" / "snapshots" / "step-00000007").exists()
    assert not out.exists()
