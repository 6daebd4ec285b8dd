import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fake_peer import write_peer
from training.bench import shakespeare, throughput
from training.bench.command import run
from training.bench.peer import load_peer, run_script
from training.bench.settings import PeerBenchSettings

TEXT = "".join(f"O, {i} gentle winds that over rivers run!\n" for i in range(120))
TINY = throughput.Size("char", 65, 8, 1, 2, 8, batch_size=2, steps=2)
ON_CPU = throughput.Terms("fp32", False, torch.device("cpu"), seed=1)


def test_both_take_the_same_number_of_steps_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def count(name: str, make: Callable[..., Iterator[throughput.Step]]) -> Callable[..., Iterator[throughput.Step]]:
        def steps(*arguments: object) -> Iterator[throughput.Step]:
            (step,) = make(*arguments)
            yield lambda number: (taken.append(name), step(number))[1]

        return steps

    monkeypatch.setattr(throughput, "our_steps", count("ours", throughput.our_steps))
    monkeypatch.setattr(throughput, "peer_steps", count("theirs", throughput.peer_steps))
    times = throughput.measure(TINY, load_peer(write_peer(tmp_path)), ON_CPU, rounds=2, steps=2)
    assert {name: len(seconds) for name, seconds in times.items()} == {"groundup": 2, "nanoGPT": 2}
    a, b = ["ours"] * 2, ["theirs"] * 2
    assert taken == [*b, *a, *a, *b, *b, *a]  # the warm-up, then each goes first once


def test_our_side_learns_the_peers_architecture() -> None:
    theirs, ours = throughput.peer_shape(TINY), throughput.our_shape(TINY)
    assert ours.model_dump().items() >= {k: v for k, v in theirs.items() if k != "bias"}.items()
    assert (ours.family, ours.activation, ours.tie_embeddings) == ("gpt2", "gelu", True)


def test_rows_and_targets_are_neighbours() -> None:
    idx, targets = throughput.random_rows(np.arange(1000), TINY)
    assert torch.equal(idx + 1, targets)
    assert idx.shape == (2, 8)


def test_the_tables_show_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(throughput.SIZES, "char", TINY)
    (tmp_path / "input.txt").write_text(TEXT)
    peer = write_peer(tmp_path / "peer")
    settings = {"peer": peer, "data": tmp_path / "input.txt", "parts": ("throughput", "shakespeare")}
    run(PeerBenchSettings.model_validate({**settings, "sizes": ("char",), "rounds": 1, "steps": 3}))
    tables = capsys.readouterr().out
    assert "peer: " not in tables
    assert "| char | " in tables
    rows = [line.split("|") for line in tables.splitlines() if line.startswith(("| groundup", "| nanoGPT"))]
    losses = [float(row[2]) for row in rows]
    vocabulary = len(set(TEXT))
    assert 3 < losses[0] < math.log(262)  # three steps from nothing
    assert losses[1] == pytest.approx(math.log(vocabulary), abs=0.7)  # none at all


def test_the_loss_counts_each_target_of_whole_windows_once() -> None:
    seen: list[torch.Tensor] = []

    def certain(idx: torch.Tensor) -> torch.Tensor:
        """Be sure that each number is followed by the next one."""
        seen.append(idx)
        return 50.0 * torch.nn.functional.one_hot((idx + 1) % 1000, 1000).float()

    assert shakespeare.mean_loss([number % 1000 for number in range(64 * 300 + 5)], certain) < 1e-3
    assert sum(map(len, seen)) == 300


def test_the_text_is_cut_where_the_peer_cuts_it() -> None:
    train, valid = shakespeare.split_text("x" * 1_115_394)
    assert (len(train), len(valid)) == (1_003_854, 111_540)  # as its data preparation reports


def test_what_is_missing_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--peer: .* not a nanoGPT checkout"):
        run(PeerBenchSettings(peer=tmp_path))
    with pytest.raises(ValueError, match=r"^--data: "):
        run(PeerBenchSettings(peer=write_peer(tmp_path / "peer"), parts=("shakespeare",)))


def test_a_failing_script_of_the_peer_is_quoted(tmp_path: Path) -> None:
    peer = write_peer(tmp_path / "peer", train="raise SystemExit('no such dataset')")
    with pytest.raises(ValueError, match=r"^--peer: train.py failed: no such dataset"):
        run_script(peer, TEXT, [], tmp_path / "work")
