"""Which layers an adapter changes, and how much, by the rules that PEFT has."""

from typing import Any

import pytest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from model.adapter_config import AdapterConfig, kinds_of_linears, public_linears
from tests.tiny import make_config

CHOICES: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "mlp.down_proj"]},
    {"target_modules": ["q_proj", "o_proj"], "exclude_modules": ["layers.1.self_attn.o_proj"]},
    {"target_modules": r"model\.layers\.\d+\.mlp\.(up|down)_proj"},
    {"target_modules": ["k_proj", "gate_proj"], "layers_to_transform": [1]},
    {"target_modules": ["v_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
    {"target_modules": ["model.layers.1.self_attn.q_proj", "lm_head"], "exclude_modules": r".*layers\.0.*"},
]


@pytest.mark.parametrize("public", CHOICES)
def test_the_layers_that_peft_would_change_are_changed(public: dict[str, Any]) -> None:
    shape = make_config("llama3")
    names = [linear.public_name for linear in public_linears(shape)]
    theirs = LoraConfig(**public)
    found = {name: check_target_module_exists(theirs, name) for name in names}
    expected = [name for name, match in found.items() if match and type(match).__name__ != "_ExcludedModule"]
    ours = AdapterConfig.from_public({"peft_type": "LORA", **public})
    assert [linear.public_name for linear in ours.adapted(shape, is_classifier=False)] == expected
    assert expected


def test_the_first_pattern_that_fits_counts() -> None:
    patterns = {"layers.0.*": 6, "q_proj": 2, ".*v_proj": 5, "proj": 7}
    config = AdapterConfig(rank=3, alpha=12, rank_pattern=patterns, alpha_pattern={"v_proj": 10})
    for linear in public_linears(make_config("llama")):
        name = linear.public_name
        assert config.rank_of(name) == patterns.get(get_pattern_key(list(patterns), name), 3), name
    assert config.scale_of("model.layers.1.self_attn.v_proj") == 10 / 5
    assert config.scale_of("model.layers.1.self_attn.k_proj") == 12 / 3
    stable = config.model_copy(update={"is_rank_stabilized": True, "rank": 4})
    assert stable.scale_of("model.layers.1.self_attn.k_proj") == 12 / 2


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("gpt2", ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]),
        ("llama", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ("llama3", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]),
    ],
)
def test_kinds_of_layers_have_the_shortest_names_that_tell_them_apart(kind: str, kinds: list[str]) -> None:
    assert kinds_of_linears([linear.public_name for linear in public_linears(make_config(kind))]) == kinds


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama3"])
def test_public_layers_cover_the_rows_of_ours(kind: str) -> None:
    shape = make_config(kind)
    rows: dict[str, list[int]] = {}
    for linear in public_linears(shape):
        rows.setdefault(linear.name, []).extend(range(linear.first_row, linear.first_row + linear.num_rows))
    assert all(found == list(range(len(found))) for found in rows.values())
    assert len(rows["h.0.attn.qkv"]) == (3 * 32 if kind == "gpt2" else 32 + 2 * 16)


def test_a_config_survives_its_public_form() -> None:
    config = AdapterConfig(
        rank=3,
        alpha=4.5,
        dropout=0.1,
        targets=("q_proj",),
        excluded=("layers.0.self_attn.q_proj",),
        layers=(1,),
        rank_pattern={"q_proj": 2},
        alpha_pattern={"q_proj": 9.0},
        is_rank_stabilized=True,
        base="runs/base",
    )
    assert AdapterConfig.from_public(config.to_public(make_config("llama"), is_classifier=False)) == config
