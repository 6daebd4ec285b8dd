"""Adapter directories: what is refused, by name, and what tells one base from another."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.adapter import adapter_files, base_digests, load_adapter
from model.adapter_config import AdapterConfig
from model.adapter_directory import StoredAdapter, read_adapter
from model.directory import CheckpointError
from model.gpt import GPT
from model.lora import add_lora
from tests.tiny import make_config, make_gpt

CONFIG = AdapterConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"), base="bases/llama")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of a tiny Llama."""
    model = make_gpt(make_config("llama"))
    add_lora(model, CONFIG)
    for name, content in adapter_files(model, CONFIG).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def load(adapter: Path, model: GPT | None = None) -> StoredAdapter:
    stored = read_adapter(adapter)
    load_adapter(make_gpt(make_config("llama")) if model is None else model, stored)
    return stored


def change_config(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_an_adapter_is_read_as_it_was_written(adapter: Path) -> None:
    stored = load(adapter)
    assert stored.config == CONFIG
    assert stored.num_labels is None
    assert stored.base_digests == dict(base_digests(make_gpt(make_config("llama"))))


def test_a_base_is_known_by_its_weights_be_they_rounded_or_not(adapter: Path) -> None:
    load(adapter, make_gpt(make_config("llama")).bfloat16())
    other = make_gpt(make_config("llama"))
    other.h[1].mlp.down.weight.data[3, 5] += 0.1
    message = (
        "made for another base: tensor 'model.layers.1.mlp.down_proj.weight' has other values there; give .*bases/llama"
    )
    with pytest.raises(CheckpointError, match=message):
        load(adapter, other)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "llama",
            {"n_head_dim": 16},
            "made for another base: tensor .*q_proj.lora_B.weight' has shape .32, 2., .* .64, 2.",
        ),
        (
            "llama",
            {"n_layer": 1},
            "tensor 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight' has no place",
        ),
        (
            "llama",
            {"n_layer": 3},
            "made for another base: tensor .*layers.2.self_attn.q_proj.lora_A.weight' is missing",
        ),
        (
            "gpt2",
            {},
            "made for another base, .*: q_proj: no linear layer of this model is called so; there are: c_attn",
        ),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    kind: str, changes: dict[str, int], message: str, adapter: Path
) -> None:
    change_weights(adapter, lambda tensors: None)  # forgets the digests of the base, as PEFT never had them
    with pytest.raises(CheckpointError, match=message):
        load(adapter, make_gpt(make_config(kind, **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora: True is not supported"),
        ({"bias": "lora_only"}, "bias: lora_only is not supported"),
        ({"peft_type": "IA3"}, "peft_type: IA3 is not supported"),
        ({"task_type": "TOKEN_CLS"}, "task_type: TOKEN_CLS is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: lm_head is not supported"),
        ({"layers_pattern": "encoder"}, "layers_pattern: encoder is not supported"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights: pissa_niter_4 is not supported, since it changes the",
        ),
        ({"layer_replication": [[0, 2]]}, "layer_replication: .* is not supported"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices: .3. is not supported"),
        ({"lora_bias": True}, "lora_bias: True is not supported"),
        ({"invented_in_2031": 7}, "invented_in_2031: 7 is not supported"),
        ({"task_type": "SEQ_CLS"}, "adapts a classifier, but its head score.weight is missing"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj: Input should be greater than 0"),
        ({"r": 0}, "rank: Input should be greater than or equal to 1"),
        ({"r": 3}, "q_proj.lora_A.weight' has shape .2, 32., but this base asks for .3, 32."),
        ({"target_modules": ["q_proj"]}, "v_proj.lora_A.weight' has no place in this base"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "o_proj.lora_A.weight' is missing"),
        ({"target_modules": ["query"]}, "query: no linear layer of this model is called so; there are: q_proj, k_proj"),
        ({"target_modules": "q_(proj"}, "targets: .* is no regular expression: missing"),
        ({"target_modules": None}, "no linear layer is left to change"),
        ({"layers_to_transform": [5]}, "layers: .5. of the 2 blocks, counted from 0"),
    ],
)
def test_what_is_not_supported_or_does_not_fit_is_refused_by_name(
    changes: dict[str, Any], message: str, adapter: Path
) -> None:
    change_config(adapter, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(adapter)


def test_damaged_files_are_refused(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(adapter)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are refused"):
        load(adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no such file; an adapter directory needs it"):
        load(adapter)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=re.escape("adapter_config.json: holds a JSON list")):
        load(adapter)
