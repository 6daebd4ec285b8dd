"""A checkpoint is a Hugging Face directory: transformers reads ours, we read theirs, and damage is named."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    pipeline,
)

from model.checkpoint import load_classifier, load_gpt, save_checkpoint
from model.classifier import GPTClassifier
from model.directory import CheckpointError, read_checkpoint, weight_files
from model.tokenizer import Tokenizer
from tests.tiny import KINDS, make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, llama2

IDX = torch.arange(60).reshape(2, 30)


@pytest.mark.parametrize("name", ["tiny-base", "tiny-chat"])
def test_transformers_loads_our_language_model_with_equal_logits(tiny_checkpoints: Path, name: str) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(tiny_checkpoints / name)
    ours = load_gpt(tiny_checkpoints / name)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(IDX)), theirs(IDX).logits, atol=2e-5, rtol=1e-4)


def test_transformers_loads_our_classifier_with_equal_logits_and_labels(tiny_checkpoints: Path) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoints / "tiny-spam")
    ours = load_classifier(tiny_checkpoints / "tiny-spam")
    with torch.no_grad():
        torch.testing.assert_close(ours(IDX, torch.tensor([30, 30])), theirs(IDX).logits, atol=2e-5, rtol=1e-4)
    assert theirs.config.id2label == {0: "ham", 1: "spam"}


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_transformers_knows_whether_our_labels_exclude_each_other(
    tmp_path: Path, tokenizer: Tokenizer, is_multi_label: bool
) -> None:
    classifier = GPTClassifier(make_config("gpt2"), 3)
    save_checkpoint(
        tmp_path / "tags", classifier, tokenizer, model_card="", labels=["a", "b", "c"], is_multi_label=is_multi_label
    )
    assert read_checkpoint(tmp_path / "tags").is_multi_label is is_multi_label
    theirs = pipeline("text-classification", str(tmp_path / "tags"), top_k=None, device="cpu")
    ids = torch.tensor([tokenizer.encode("A small boat")])
    with torch.no_grad():
        logits = load_classifier(tmp_path / "tags")(ids, torch.tensor([ids.shape[1]]))[0]
    probabilities = logits.sigmoid() if is_multi_label else logits.softmax(-1)
    (found,) = theirs(["A small boat"])
    assert {row["label"]: row["score"] for row in found} == pytest.approx(
        dict(zip("abc", probabilities.tolist(), strict=True)), abs=1e-5
    )


def test_transformers_loads_our_tokenizer_and_chat_template(tiny_checkpoints: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_checkpoints / "tiny-chat")
    assert theirs.encode("A small boat") == tokenizer.encode("A small boat")
    assert theirs.chat_template
    assert theirs.eos_token_id == tokenizer.eos_id


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_every_kind_as_its_own_class(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    ours = make_gpt(make_config(kind))
    save_checkpoint(tmp_path / "model", ours, tokenizer, model_card="")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    assert [type(theirs).__name__] == theirs.config.architectures
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(IDX)), theirs(IDX).logits, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_a_classifier_of_every_kind(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    torch.manual_seed(0)
    ours = GPTClassifier(make_config(kind), num_labels=3).eval()
    save_checkpoint(tmp_path / "model", ours, tokenizer, model_card="", labels=["a", "b", "c"])
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    assert [type(theirs).__name__] == theirs.config.architectures
    assert read_checkpoint(tmp_path / "model").labels == ("a", "b", "c")
    loaded = load_classifier(tmp_path / "model")
    lengths = torch.tensor([30, 30])
    with torch.no_grad():
        torch.testing.assert_close(ours(IDX, lengths), theirs(IDX).logits, atol=5e-5, rtol=1e-4)
        assert torch.equal(ours(IDX, lengths), loaded(IDX, lengths))


def test_weights_in_several_files_load_here_and_in_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ours = make_gpt(make_config("qwen3"))
    save_checkpoint(tmp_path, ours, tokenizer, model_card="", shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = ours.logits(ours(IDX))
        torch.testing.assert_close(theirs(IDX).logits, expected, atol=5e-5, rtol=1e-4)
        loaded = load_gpt(tmp_path)
        assert torch.equal(loaded.logits(loaded(IDX)), expected)


SIZES = {"vocab_size": 384, "max_position_embeddings": 128, "hidden_size": 32, "intermediate_size": 48}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SCALED = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
THEIRS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(vocab_size=384, n_positions=128, n_embd=32, n_layer=2, n_head=4),
    "llama": LlamaConfig(**SIZES, **LAYERS, tie_word_embeddings=True),
    "llama-untied": LlamaConfig(**SIZES, **LAYERS, tie_word_embeddings=False, attention_bias=True),
    "llama3": LlamaConfig(**SIZES, **LAYERS, rope_parameters={**SCALED, "original_max_position_embeddings": 64}),
    "mistral": MistralConfig(**SIZES, **LAYERS, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, **LAYERS),
    "qwen3": Qwen3Config(**SIZES, **LAYERS, head_dim=12),
}


@pytest.mark.parametrize("name", THEIRS)
def test_we_load_what_transformers_saves(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(THEIRS[name]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(IDX)), theirs(IDX).logits, atol=5e-5, rtol=1e-4)


def test_sharded_weights_without_prefix_and_with_mask_buffers_load(tiny_checkpoints: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_checkpoints / "tiny-base", tmp_path / "sharded")
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(path / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 128, 128)
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    ours, original = load_gpt(path), load_gpt(tiny_checkpoints / "tiny-base")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), original.parameters(), strict=True))


@pytest.mark.parametrize("name", ["gpt2", "qwen3-tied"])
def test_files_of_the_bare_body_load(tmp_path: Path, name: str) -> None:
    config = {**THEIRS, "qwen3-tied": Qwen3Config(**SIZES, **LAYERS, head_dim=12, tie_word_embeddings=True)}[name]
    theirs = AutoModelForCausalLM.from_config(config)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.base_model.save_pretrained(tmp_path / "body")
    whole, body = load_gpt(tmp_path / "whole"), load_gpt(tmp_path / "body")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), body.parameters(), strict=True))


def test_the_token_that_opens_a_text_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, each in (("plain", tokenizer), ("llama2", Tokenizer(llama2(), LLAMA2_CONFIG))):
        model = make_gpt(make_config("llama", vocab_size=each.vocab_size))
        save_checkpoint(tmp_path / name, model, each, model_card="")
        for file in ("config.json", "generation_config.json"):
            named = json.loads((tmp_path / name / file).read_text())["bos_token_id"]
            assert named == (each.bos_ids[0] if name == "llama2" else each.eos_id)


def test_description_tells_kind_labels_and_end_tokens(tiny_checkpoints: Path, tokenizer: Tokenizer) -> None:
    kinds = {name: read_checkpoint(tiny_checkpoints / name).kind for name in ("tiny-base", "tiny-chat", "tiny-spam")}
    assert kinds == {"tiny-base": "base", "tiny-chat": "chat", "tiny-spam": "classifier"}
    assert read_checkpoint(tiny_checkpoints / "tiny-spam").labels == ("ham", "spam")
    end = tokenizer.special_tokens["<|end|>"]
    assert read_checkpoint(tiny_checkpoints / "tiny-chat").eos_token_ids == (end, tokenizer.eos_id)
    assert read_checkpoint(tiny_checkpoints / "tiny-chat").config == make_config("llama", n_inner=96)


def _edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return damage


def _edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))

    return damage


def _truncate(path: Path) -> None:
    file = path / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def _pickle_only(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def _disguise_pickle(path: Path) -> None:
    (path / "model.safetensors").write_bytes(pickle.dumps({"weights": [0] * 100}))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (_edit_weights(lambda t: t.pop("transformer.h.1.mlp.c_fc.bias")), "'transformer.h.1.mlp.c_fc.bias' is missing"),
    (_edit_weights(lambda t: t.update(extra=torch.zeros(2))), "tensor 'extra' does not belong to this model"),
    (
        _edit_weights(lambda t: t.update({"transformer.ln_f.bias": torch.zeros(31)})),
        r"'transformer.ln_f.bias' has shape \[31\], but config.json asks for \[32\]",
    ),
    (_truncate, "model.safetensors: not a whole safetensors file"),
    (_disguise_pickle, "model.safetensors: not a whole safetensors file"),
    (_pickle_only, "pytorch_model.bin: pickled weights are refused"),
    (lambda path: (path / "config.json").unlink(), "config.json: no such file"),
    (lambda path: (path / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
    (_edit_config(model_type="bert"), "config.json: model_type 'bert' is not supported"),
    (_edit_config(n_embd=33), r"config.json: .*n_embd \(33\) must be a multiple of n_head"),
    (_edit_config(activation_function="relu"), "activation_function 'relu' is not supported"),
    (_edit_config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx: True is not supported"),
    (lambda path: shutil.rmtree(path), "no such directory"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_named(tiny_checkpoints: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = shutil.copytree(tiny_checkpoints / "tiny-base", tmp_path / "damaged")
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        load_gpt(path)


def test_kind_is_checked_on_load(tiny_checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a classifier"):
        load_gpt(tiny_checkpoints / "tiny-spam")
    with pytest.raises(CheckpointError, match="holds a language model"):
        load_classifier(tiny_checkpoints / "tiny-base")


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama", tie_embeddings=False))
    save_checkpoint(tmp_path / "model", model, tokenizer, model_card="# Card\n", extra_files={"run.toml": b"x = 1\n"})
    loaded = load_gpt(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert (tmp_path / "model" / "run.toml").read_bytes() == b"x = 1\n"
    assert (tmp_path / "model" / "README.md").read_text() == "# Card\n"


def test_weights_are_as_readable_as_the_other_files(tiny_checkpoints: Path) -> None:
    modes = {file.stat().st_mode & 0o777 for file in (tiny_checkpoints / "tiny-base").iterdir()}
    assert len(modes) == 1


def test_weights_can_be_stored_in_bfloat16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2"))
    save_checkpoint(tmp_path / "model", model, tokenizer, model_card="", dtype=torch.bfloat16)
    assert load_file(tmp_path / "model" / "model.safetensors")["transformer.wte.weight"].dtype == torch.bfloat16
    loaded = load_gpt(tmp_path / "model", dtype=torch.bfloat16)
    assert torch.equal(loaded.wte.weight, model.wte.weight.bfloat16())


def test_failed_write_keeps_the_old_checkpoint(tmp_path: Path, tokenizer: Tokenizer, tiny_checkpoints: Path) -> None:
    path = shutil.copytree(tiny_checkpoints / "tiny-base", tmp_path / "model")
    before = (path / "model.safetensors").read_bytes()
    model = make_gpt(make_config("gpt2"), seed=9)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path, model, tokenizer, model_card="", extra_files={"no/such/folder": b""})
    assert (path / "model.safetensors").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    save_checkpoint(path, model, tokenizer, model_card="")
    assert (path / "model.safetensors").read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_directory_that_is_no_checkpoint_is_never_replaced(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists and is not a checkpoint"):
        save_checkpoint(tmp_path, make_gpt(make_config("gpt2")), tokenizer, model_card="")
    assert (tmp_path / "thesis.txt").exists()


def test_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="the tokenizer has 384 tokens but the model only 300"):
        save_checkpoint(tmp_path / "m", make_gpt(make_config("gpt2", vocab_size=300)), tokenizer, model_card="")


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}])
def test_an_index_that_is_no_table_is_named(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="weight_map does not map tensors to files"):
        weight_files(tmp_path)
