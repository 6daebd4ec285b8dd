"""Files of nanoGPT, the book and Meta, written as their projects write them, give the logits of an oracle."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.directory import CheckpointError
from model.foreign.foreign_model import ForeignModel
from model.import_command import ImportConfig, open_source
from tests.foreign_files import IDX, write_book, write_meta, write_nanogpt


def open_file(source: Path, **settings: object) -> ForeignModel:
    return open_source(ImportConfig.model_validate({"source": source, "out": source / "out", **settings}))


def difference(foreign: ForeignModel, expected: Tensor) -> float:
    model = foreign.load()
    with torch.no_grad():
        return float((model.logits(model(IDX)) - expected).abs().max())


@pytest.mark.parametrize("has_bias", [True, False])
def test_nanogpt_gives_the_logits_of_the_oracle_with_its_exact_gelu(tmp_path: Path, has_bias: bool) -> None:
    expected = write_nanogpt(tmp_path, has_bias=has_bias)(IDX).logits.detach()
    foreign = open_file(tmp_path)
    assert (foreign.origin, foreign.config.activation, foreign.config.dropout) == ("nanoGPT", "gelu", 0.1)
    assert difference(foreign, expected) < 1e-10
    wrong = replace(foreign, config=foreign.config.model_copy(update={"activation": "gelu_tanh"}))
    assert difference(wrong, expected) > 1e-6


@pytest.mark.parametrize("has_qkv_bias", [True, False])
@pytest.mark.parametrize("is_joined", [True, False])
def test_the_book_gives_the_logits_of_the_oracle_with_its_tanh_gelu(
    tmp_path: Path, has_qkv_bias: bool, is_joined: bool
) -> None:
    expected = write_book(tmp_path, has_qkv_bias=has_qkv_bias, is_joined=is_joined)(IDX).logits.detach()
    foreign = open_file(tmp_path / "model.pth", n_head=4)
    assert (foreign.config.activation, foreign.config.tie_embeddings) == ("gelu_tanh", False)
    assert difference(foreign, expected) < 1e-10
    assert difference(open_file(tmp_path / "model.pth", n_head=2), expected) > 1e-3


def test_a_head_equal_to_the_embedding_is_tied(tmp_path: Path) -> None:
    expected = write_book(tmp_path, has_qkv_bias=True, is_joined=False, is_tied=True)(IDX).logits.detach()
    foreign = open_file(tmp_path / "model.pth", n_head=4)
    assert foreign.config.tie_embeddings
    assert difference(foreign, expected) < 1e-10


def test_metas_llama_gives_the_logits_of_complex_rotation_once_its_pairs_are_parted(tmp_path: Path) -> None:
    expected = write_meta(tmp_path)(IDX)
    foreign = open_file(tmp_path, block_size=64)
    assert difference(foreign, expected) < 1e-10
    assert difference(replace(foreign, has_paired_heads=False), expected) > 1e-3


def edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def test_what_is_missing_or_too_much_is_named(tmp_path: Path) -> None:
    write_book(tmp_path, has_qkv_bias=True, is_joined=False)
    file = tmp_path / "model.pth"
    with pytest.raises(CheckpointError, match=r"--n-head: .*model\.pth does not tell it"):
        open_file(file)
    with pytest.raises(CheckpointError, match=r"n_embd \(32\) must be a multiple of n_head \(5\)"):
        open_file(file, n_head=5)
    edit(file, lambda state: state.update(extra=torch.zeros(2)))
    with pytest.raises(CheckpointError, match="tensor 'extra' does not belong to this model"):
        open_file(file, n_head=4).load()
    edit(file, lambda state: (state.pop("extra"), state.pop("trf_blocks.1.att.W_key.bias")))
    with pytest.raises(CheckpointError, match=r"tensor 'trf_blocks\.1\.att\.W_key\.bias' is missing"):
        open_file(file, n_head=4).load()
    edit(file, lambda state: state.pop("pos_emb.weight"))
    with pytest.raises(CheckpointError, match=r"tensor 'pos_emb\.weight' is missing"):
        open_file(file, n_head=4)
    write_nanogpt(tmp_path, has_bias=True)
    edit(tmp_path / "ckpt.pt", lambda content: content["model_args"].pop("n_head"))
    with pytest.raises(CheckpointError, match="n_head is missing from its model_args"):
        open_file(tmp_path)


def test_meta_files_say_what_they_need(tmp_path: Path) -> None:
    write_meta(tmp_path)
    with pytest.raises(CheckpointError, match=r"--block-size: .* does not tell it; Llama 2 has 4096"):
        open_file(tmp_path)
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps({**params, "use_scaled_rope": True}))
    with pytest.raises(CheckpointError, match="use_scaled_rope: the factor is written nowhere"):
        open_file(tmp_path, block_size=64)
    (tmp_path / "consolidated.01.pth").touch()
    with pytest.raises(CheckpointError, match=r"consolidated\.01\.pth: models cut for several devices"):
        open_file(tmp_path, block_size=64)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, [torch.zeros(2)], {"model": {}, "model_args": 3}])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: holds no model of nanoGPT, the book's GPTModel or Meta's"):
        open_file(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"holds neither config\.json nor ckpt\.pt nor consolidated\.00\.pth"):
        open_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tok_emb.weight", [1.0], "'tok_emb.weight' is not a plain tensor of floats"),
        ("tok_emb.weight", torch.zeros(5), r"'tok_emb.weight' has shape \[5\], expected a matrix"),
        ("tok_emb.weight", torch.zeros(384, 32).to_sparse(), "'tok_emb.weight' is not a plain tensor of floats"),
        ("pos_emb.weight", torch.zeros(64, 32, dtype=torch.int64), "'pos_emb.weight' is not a plain tensor of floats"),
        (7, 7, "'7' is not a plain tensor of floats"),
    ],
)
def test_odd_values_among_the_weights_are_named(tmp_path: Path, name: object, value: object, message: str) -> None:
    write_book(tmp_path, has_qkv_bias=True, is_joined=False)
    file = tmp_path / "model.pth"
    torch.save({**torch.load(file, weights_only=True), name: value}, file)
    with pytest.raises(CheckpointError, match=message):
        open_file(file, n_head=4)


def test_a_file_of_nanogpt_without_weights_is_named(tmp_path: Path) -> None:
    sizes = {"vocab_size": 384, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 4}
    torch.save({"model": {}, "model_args": sizes}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_file(tmp_path)


@pytest.mark.parametrize("state", [None, [1, 2]])
def test_a_state_that_is_no_table_is_no_model(tmp_path: Path, state: object) -> None:
    torch.save({"model_state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="holds no model of"):
        open_file(tmp_path / "model.pth")
