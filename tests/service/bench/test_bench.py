"""The benchmark itself: that both sides do the same work, and that it runs to its end on a tiny model."""

from pathlib import Path

import pytest

from model.tokenizer import Tokenizer
from service.bench import command
from service.bench.contenders import OurEngine, Transformers
from service.bench.random_gpt2 import make_tokenizer, save_random_gpt2
from service.settings import BenchSettings

SETTINGS = BenchSettings(preset="tiny-gpt2", concurrency=(1, 3), new_tokens=8, repeats=1, num_threads=1)


def test_every_token_of_the_random_vocabulary_has_text() -> None:
    tokenizer = make_tokenizer(50257)
    assert tokenizer.vocab_size == 50257
    assert all(tokenizer.token_bytes(token_id) for token_id in range(50257))
    text = "".join(tokenizer.token_bytes(token_id).decode() for token_id in (300, 5000, 40000))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_both_contenders_continue_the_same_prompts_with_the_same_ids(tmp_path: Path) -> None:
    path = tmp_path / "random"
    save_random_gpt2(path, "tiny-gpt2")
    assert Tokenizer.from_directory(path).vocab_size == 512
    prompts = command.make_prompts(SETTINGS, 3)
    _, ours = OurEngine(path, SETTINGS).run(prompts, 8)
    _, theirs = Transformers(path, SETTINGS).run(prompts, 8)
    assert ours == theirs
    assert [len(ids) for ids in ours] == [8, 8, 8]


def test_the_ratio_is_that_of_the_medians() -> None:
    times = {"a": {4: [1.0, 2.0, 9.0]}, "b": {4: [2.0, 6.0, 6.0]}}
    assert command.ratio_table(times, 10, "a", "b").splitlines()[-1] == "| 4 | 20.0 | 6.7 | 3.00 | 2.00, 3.00, 0.67 |"


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_a_tiny_model(capsys: pytest.CaptureFixture[str]) -> None:
    command.run(SETTINGS)
    written = capsys.readouterr().out
    assert "Sequences with the same ids from both: 4 of 4." in written
    assert "| 3 | " in written.split("engine over HTTP")[1]
    assert "The server at rest: " in written
