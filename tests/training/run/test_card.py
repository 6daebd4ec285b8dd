from pathlib import Path

import pytest

from model.checkpoint import load_gpt
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.config.run import RunConfig
from training.run.card import Card, render_card, save_run
from training.run.state import TrainerState
from training.run.tracking import MetricsLog

CARD = Card(
    summary="A model that sails.",
    data="Logbooks.",
    metrics={"Held-out loss": 1.23456, "Exact": "91%"},
    reproduce="groundup pretrain --config run.toml",
    notes="## Limits\n\nKnows no land.",
)


@pytest.fixture
def log() -> MetricsLog:
    log = MetricsLog()
    for step in range(1, 6):
        log.write("train", step, loss=3 / step)
    log.write("valid", 5, loss=1.0)
    return log


def test_a_card_tells_data_results_recipe_and_how_to_repeat() -> None:
    config = RunConfig(out=Path("runs/boat"), steps=10)
    state = TrainerState(step=10, num_tokens=12345, best_step=8)
    text = render_card(CARD, config, make_gpt(make_config("llama")), state)
    for part in (
        "pipeline_tag: text-generation",
        "# boat",
        "A model that sails.",
        "Logbooks.",
        "| Held-out loss | 1.235 |",
        "| Exact | 91% |",
        "| Tokens read | 12,345 |",
        "10 of 10 (kept: step 8, the lowest validation loss)",
        "![Loss, learning rate and speed over the steps](curves.png)",
        "steps = 10",
        "groundup pretrain --config run.toml",
        "Knows no land.",
    ):
        assert part in text


def test_a_saved_run_is_a_checkpoint_with_its_history(tmp_path: Path, tokenizer: Tokenizer, log: MetricsLog) -> None:
    config = RunConfig(out=tmp_path / "boat")
    checkpoint = save_run(
        config, make_gpt(make_config("llama")), tokenizer, CARD, log, TrainerState(), extra_files={"port.txt": b"Cadiz"}
    )
    assert checkpoint.kind == "base"
    assert (tmp_path / "boat" / "port.txt").read_bytes() == b"Cadiz"
    assert (tmp_path / "boat" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "boat" / "run.toml").read_text() == config.to_toml()
    assert (tmp_path / "boat" / "metrics.jsonl").read_text() == log.to_jsonl()
    load_gpt(tmp_path / "boat")
