"""The benchmark itself: that all contenders do the same work, and that it runs to its end on a tiny model."""

from pathlib import Path

import pytest
import torch

from model.tokenizer import Tokenizer
from service.bench import command
from service.bench.apart import Apart
from service.bench.contenders import OurEngine, Transformers
from service.bench.peers import list_missing
from service.bench.prompts import make_prompts
from service.bench.random_gpt2 import make_tokenizer, save_random_gpt2
from service.settings import BenchSettings

SETTINGS = BenchSettings(
    preset="tiny-gpt2", concurrency=(1, 3), new_tokens=8, repeats=1, num_threads=1, types=("float32", "int8")
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "random"
    save_random_gpt2(path, "tiny-gpt2")
    return path


def test_every_token_of_the_random_vocabulary_has_text() -> None:
    tokenizer = make_tokenizer(50257)
    assert tokenizer.vocab_size == 50257
    assert all(tokenizer.token_bytes(token_id) for token_id in range(50257))
    text = "".join(tokenizer.token_bytes(token_id).decode() for token_id in (300, 5000, 40000))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_both_contenders_continue_the_same_prompts_with_the_same_ids(checkpoint: Path) -> None:
    assert Tokenizer.from_directory(checkpoint).vocab_size == 512
    prompts = make_prompts("tiny-gpt2", 3, 64)
    _, ours = OurEngine(checkpoint, SETTINGS).run(prompts, 8)
    _, theirs = Transformers(checkpoint, SETTINGS).run(prompts, 8)
    assert ours == theirs
    assert [len(ids) for ids in ours] == [8, 8, 8]


@pytest.mark.parametrize("number_type", ["int8", "bfloat16"])
def test_the_engine_takes_part_with_every_type_of_weights(checkpoint: Path, number_type: str) -> None:
    engine = OurEngine(checkpoint, SETTINGS, number_type)
    assert engine.name == f"engine {number_type}"
    assert [len(ids) for ids in engine.run(make_prompts("tiny-gpt2", 2, 64), 4)[1]] == [4, 4]


def test_a_contender_in_a_process_of_its_own_does_the_same(checkpoint: Path) -> None:
    prompts = make_prompts("tiny-gpt2", 3, 64)
    with Apart(OurEngine, checkpoint, SETTINGS) as apart:
        assert apart.name == "engine float32"
        _, ids = apart.run(prompts, 8)
    assert ids == OurEngine(checkpoint, SETTINGS).run(prompts, 8)[1]


def test_a_contender_that_cannot_start_is_said_to_have_ended(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Apart(OurEngine, tmp_path, SETTINGS)


def test_a_peer_that_is_missing_is_told_how_to_come() -> None:
    hints = list(list_missing(SETTINGS))
    assert any("optimum-cli export openvino" in hint for hint in hints)
    assert any("--llama-server" in hint for hint in hints)


def test_converted_weights_without_their_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--checkpoint"):
        command.run(SETTINGS.model_copy(update={"openvino": tmp_path}))


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_a_tiny_model(capsys: pytest.CaptureFixture[str]) -> None:
    command.run(SETTINGS)
    written = capsys.readouterr().out
    assert "Sequences with the same ids from float32 and transformers: 4 of 4." in written
    assert "| engine int8 over HTTP / engine int8 |" in written
    assert "Our server at rest, float32: " in written


def test_the_machine_is_named() -> None:
    assert f"torch {torch.__version__}" in command.describe_machine()
