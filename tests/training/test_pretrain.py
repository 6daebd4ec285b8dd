import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import groundup
from model.checkpoint import load_gpt
from model.directory import CheckpointError, read_checkpoint
from model.generate import generate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from training.config.pretrain import PretrainConfig
from training.data.tokens import TokenWindows, covering_batches
from training.machine.device import set_up_torch
from training.pretrain import build_model, pretrain, run
from training.run.folder import OutputError
from training.run.tracking import MetricsLog

TINY = {"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32}
LINES = [f"The fox number {i} jumps over the dog number {i + 1}.\n" for i in range(300)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "foxes.txt"
    path.write_text("".join(LINES))
    return path


def make_config(text: Path, **changes: object) -> PretrainConfig:
    settings = {"data": text, "out": text.with_name("foxes"), "model": TINY, "steps": 20, "vocab_size": 300}
    return PretrainConfig.model_validate({**settings, "device": "cpu", "eval_interval": 10, **changes})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_becomes_a_checkpoint_that_transformers_loads(text: Path, family: str) -> None:
    config = make_config(text, model={**TINY, "family": family})
    run(config)
    assert read_checkpoint(config.out).kind == "base"
    ours, theirs = load_gpt(config.out), AutoModelForCausalLM.from_pretrained(config.out)
    ids = torch.tensor([Tokenizer.from_directory(config.out).encode(LINES[7])])
    assert AutoTokenizer.from_pretrained(config.out)(LINES[7])["input_ids"] == ids[0].tolist()
    with torch.inference_mode():
        assert torch.allclose(ours.logits(ours(ids)), theirs(ids).logits, atol=1e-4)
    assert tomllib.loads((config.out / "run.toml").read_text())["model"]["family"] == family
    assert "Held-out bits per byte" in (config.out / "README.md").read_text()
    assert not config.out.with_name("foxes.run").exists()


def test_the_command_line_does_the_same(text: Path) -> None:
    sizes = [f"--model.{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    arguments = ["pretrain", "--data", str(text), "--out", str(text.parent / "cli"), "--steps", "2", *sizes]
    assert groundup.main([*arguments, "--vocab-size", "300"]) == 0
    assert (text.parent / "cli" / "model.safetensors").exists()


def test_a_repetitive_text_is_learned(text: Path, tokenizer: Tokenizer) -> None:
    config = make_config(text, steps=80, optim={"lr": 1e-2})
    set_up_torch(config)
    model = build_model(config, tokenizer)
    ids = np.array(tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 40), dtype=np.uint16)
    log = MetricsLog()
    cut = {"block_size": TINY["block_size"], "batch_size": config.batch_size}
    windows = TokenWindows([ids], **cut, stride=4, seed=config.seed)
    pretrain(model, windows, covering_batches(ids[:200], **cut, stride=32), tokenizer, config, log=log)
    assert log.series("valid", "loss")[1][-1] < 0.2
    assert log.series("valid", "perplexity")[1][-1] < 1.25
    prompt = tokenizer.encode("The quick")
    found = generate(model, prompt, SamplingParams(max_tokens=8, temperature=0)).output_ids
    assert tokenizer.decode(found).startswith(" brown fox")


def test_the_same_settings_give_the_same_weights(text: Path) -> None:
    first, second = make_config(text, steps=5), make_config(text, steps=5, out=text.with_name("again"))
    run(first)
    run(second)
    weights = [(config.out / "model.safetensors").read_bytes() for config in (first, second)]
    assert weights[0] == weights[1]


def test_prepared_shards_give_the_same_weights_as_the_text(text: Path) -> None:
    config = make_config(text, steps=5)
    run(config)
    shards = text.with_name("shards")
    arguments = ["--data", str(text), "--out", str(shards), "--tokenizer", str(config.out), "--valid-fraction", "0.1"]
    assert groundup.main(["data", "prepare", *arguments]) == 0
    from_shards = make_config(text, steps=5, data=shards, out=text.with_name("again"))
    run(from_shards)
    assert (config.out / "model.safetensors").read_bytes() == (from_shards.out / "model.safetensors").read_bytes()


def test_a_base_brings_weights_shape_and_tokenizer(text: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = make_config(text, base=base, model={"dropout": 0.2}, steps=1)
    tokenizer = Tokenizer.from_directory(base)
    model = build_model(config, tokenizer)
    assert model.drop.p == 0.2
    assert all(torch.equal(tensor, model.state_dict()[n]) for n, tensor in load_gpt(base).state_dict().items())
    run(config)
    assert (config.out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert "It continues the training of `tiny-base`" in (config.out / "README.md").read_text()
    assert tomllib.loads((config.out / "run.toml").read_text())["model"] == {"dropout": 0.2}


def test_a_classifier_is_no_base(text: Path, tiny_checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--base: .* holds a classifier"):
        run(make_config(text, base=tiny_checkpoints / "tiny-spam", model={}))


def test_a_preset_gives_what_is_not_set(text: Path, tokenizer: Tokenizer) -> None:
    config = make_config(text, preset="tiny-llama", model={"n_layer": 1, "vocab_multiple": 64})
    shape = build_model(config, tokenizer).config
    assert (shape.family, shape.n_layer, shape.n_kv_head, shape.n_embd) == ("llama", 1, 2, 64)
    assert shape.vocab_size == 384  # of the tokenizer, in whole multiples
    assert PretrainConfig.model_validate(tomllib.loads(config.to_toml())).to_toml() == config.to_toml()


def test_embeddings_are_as_loud_as_they_are_told_to_be(text: Path, tokenizer: Tokenizer) -> None:
    for std in (0.02, 1.0):
        shape = {"family": "gpt2", "n_embd": 256, "n_layer": 1, "tie_embeddings": False, "embedding_std": std}
        model = build_model(make_config(text, model=shape), tokenizer)
        assert model.wpe is not None
        for table in (model.wte, model.wpe):
            assert float(table.weight.detach().std()) == pytest.approx(std, rel=0.05)
        assert float(model.lm_head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_larger_vocabulary_than_the_tokenizers_is_saved_and_loaded(text: Path) -> None:
    config = make_config(text, model={**TINY, "vocab_multiple": 128}, steps=2)
    run(config)
    assert load_gpt(config.out).config.vocab_size == 384 > Tokenizer.from_directory(config.out).vocab_size


def test_a_taken_place_is_refused_before_the_text_is_read(text: Path) -> None:
    config = make_config(text, data=text.with_name("no such file"))
    config.out.mkdir()
    with pytest.raises(OutputError, match="add --overwrite"):
        run(config)


@pytest.mark.parametrize(
    ("content", "message"), [("", "the files are empty"), ("one\ntwo\n", "too few for one window of 32")]
)
def test_a_text_too_short_to_learn_from_is_one_line_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "short.txt").write_text(content)
    arguments = ["--data", str(tmp_path / "short.txt"), "--out", str(tmp_path / "out"), "--model.block-size", "32"]
    assert groundup.main(["pretrain", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]


@pytest.mark.slow
def test_tiny_shakespeare_is_learned_better_than_letter_frequencies(data_dir: Path, tmp_path: Path) -> None:
    """The recipe of a few CPU-minutes, shrunk to seconds."""
    config = make_config(
        data_dir / "tinyshakespeare" / "input.txt",
        out=tmp_path / "shakespeare",
        steps=60,
        eval_interval=60,
        vocab_size=512,
        model={**TINY, "n_layer": 2, "n_embd": 64, "block_size": 64},
    )
    run(config)
    card = (config.out / "README.md").read_text()
    bits = float(card.split("| Held-out bits per byte | ")[1].split(" |")[0])
    assert bits < 3.8  # single letters by their frequency need 4.8
