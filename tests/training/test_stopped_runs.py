"""`groundup` told to stop in the middle of its work, as a terminal or a cluster does it, and told to go on."""

import json
import shutil
import signal
from pathlib import Path

import pytest

import groundup
from model.checkpoint import load_gpt
from tests.program import poll
from tests.training.running import started

pytestmark = pytest.mark.slow

SIZES = ["--model.n-layer=1", "--model.n-head=2", "--model.n-embd=32", "--model.block-size=32"]
PACE = ["--device=cpu", "--num-threads=1", "--eval-interval=5", "--steps=40"]


def stop(arguments: list[str], out: Path, snapshots: str = "snapshots", signum: signal.Signals = signal.SIGTERM) -> str:
    """Start a run, tell it to stop once it has a snapshot, and return what it said."""
    folder = out.with_name(out.name + ".run")
    with started([*arguments, "--out", str(out)], out.with_suffix(".log")) as run:

        def has_come() -> bool:
            assert run.process.poll() is None, run.log.read_text()
            return any((folder / snapshots).glob("step-*"))

        poll(has_come, 100, "no snapshot")
        run.process.send_signal(signum)
        run.wait()
        return run.log.read_text()


def finish(arguments: list[str], out: Path) -> bytes:
    """Run to the end in this process; return the weights."""
    assert groundup.main([*arguments, "--out", str(out)]) == 0
    assert not out.with_name(out.name + ".run").exists()
    return (out / "model.safetensors").read_bytes()


def test_a_stopped_run_saves_exits_well_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"The fox number {i} jumps over the dog.\n" for i in range(300)))
    arguments = ["pretrain", "--data", str(tmp_path / "a.txt"), "--vocab-size=300", *SIZES, *PACE, "--steps=80"]
    out = tmp_path / "out"
    said = stop(arguments, out, signum=signal.SIGINT)
    assert "the same command with --resume goes on" in said
    assert not out.exists()  # nothing pretends to be finished
    load_gpt(tmp_path / "out.run" / "best")
    (last,) = (tmp_path / "out.run" / "metrics.jsonl").read_text().splitlines()[-1:]
    assert 0 < json.loads(last)["step"] < 80
    assert groundup.main([*arguments, "--out", str(out)]) == 2  # not without being told
    assert finish([*arguments, "--resume"], out) == finish(arguments, tmp_path / "whole")


def test_both_stages_of_a_classifier_go_on_where_they_were(tmp_path: Path) -> None:
    rows = [f"spam\twin a prize number {i}" if i % 2 else f"ham\tsee you at {i}" for i in range(120)]
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "\n".join(rows) + "\n")
    arguments = [
        "classify",
        "--data",
        str(tmp_path / "a.tsv"),
        "--vocab-size=300",
        "--warmup-lm-steps=40",
        *SIZES,
        *PACE,
    ]
    arguments += ["--model.dropout=0.1", "--steps=40"]
    out = tmp_path / "out"
    stop(arguments, out, snapshots="reading/snapshots")
    stop([*arguments, "--resume"], out)
    assert finish([*arguments, "--resume"], out) == finish(arguments, tmp_path / "whole")


@pytest.mark.parametrize("rows", [["--batch-size=8"], ["--batch-size=2", "--pack"]])
def test_an_assistant_goes_on_where_it_was(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str], rows: list[str]
) -> None:
    talks = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(100)]
    (tmp_path / "a.json").write_text(json.dumps(talks))
    base = shutil.copytree(tiny_checkpoints / "tiny-chat", tmp_path / "base")
    arguments = ["instruct", "--data", str(tmp_path / "a.json"), "--base", str(base), *PACE, *rows]
    out = tmp_path / "out"
    stop(arguments, out)
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text(template + "\n")
    assert groundup.main([*arguments, "--out", str(out), "--resume"]) == 2
    assert "--template: not what the interrupted run" in capsys.readouterr().err
    (base / "chat_template.jinja").write_text(template)
    assert finish([*arguments, "--resume"], out) == finish(arguments, tmp_path / "whole")
