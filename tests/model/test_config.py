"""Impossible shapes are refused with the fields named."""

import pytest
from pydantic import ValidationError

from model.config import PRESETS, GPTConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 10, "n_head": 3}, "n_embd .10. must be a multiple of n_head .3."),
        ({"family": "llama", "n_embd": 64, "n_head": 4, "n_kv_head": 3}, "must be a multiple of n_kv_head"),
        ({"n_head": 12, "n_kv_head": 4}, "the gpt2 family has one key head per query head"),
        ({"family": "llama", "n_embd": 12, "n_head": 4}, "must be even for rotary positions"),
        ({"family": "llama", "n_head_dim": 15}, "the width of a head .15. must be even"),
        ({"n_head_dim": 32}, "n_head_dim: only the llama family has it"),
        ({"qk_norm": True}, "qk_norm: only the llama family has it"),
        (
            {"family": "llama", "qk_norm": True, "attention_bias": "qkv"},
            "attention_bias: with qk_norm it is none or all",
        ),
        (
            {"family": "llama", "rope_scaling": {"factor": 8, "original_block_size": 64, "high_freq_factor": 1}},
            "must be",
        ),
        ({"vocab_size": 0}, "greater than or equal to 1"),
        ({"width": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_shape_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GPTConfig.model_validate(fields)


def test_inner_width_follows_the_family() -> None:
    assert PRESETS["gpt2-small"].inner_dim == 3072
    assert GPTConfig(family="llama", n_embd=96, n_head=4).inner_dim == 256
