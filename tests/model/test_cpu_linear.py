"""Packed linear layers against the plain ones they replace."""

import copy

import pytest
import torch
from torch import nn

from model.cpu_linear import CpuLinear, pack_linears
from tests.tiny import KINDS, make_config, make_gpt


@pytest.mark.parametrize("num_rows", [1, 2, 7, 32, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_packed_linear_gives_what_the_plain_one_gives(num_rows, bias, is_shared):
    torch.manual_seed(0)
    linear = nn.Linear(96, 70, bias=bias)
    x = torch.randn(1, num_rows, 96)
    with torch.inference_mode():
        torch.testing.assert_close(CpuLinear(linear, is_shared=is_shared)(x), linear(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_packed_model_gives_the_same_logits(kind, tie_embeddings):
    model = make_gpt(make_config(kind, tie_embeddings=tie_embeddings))
    packed = copy.deepcopy(model)
    pack_linears(packed)
    assert not any(isinstance(module, nn.Linear) for module in packed.modules())
    idx = torch.arange(50)[None]
    with torch.inference_mode():
        torch.testing.assert_close(packed.logits(packed(idx)), model.logits(model(idx)), atol=1e-4, rtol=1e-5)


def test_bfloat16_weights_are_packed_too():
    torch.manual_seed(0)
    linear = nn.Linear(96, 70).bfloat16()
    x = torch.randn(5, 96).bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(CpuLinear(linear, is_shared=False)(x), linear(x), atol=0.05, rtol=0.05)


def test_a_weight_shared_with_the_embedding_stays_one_memory():
    model = make_gpt(make_config("gpt2"))
    pack_linears(model)
    assert model.lm_head.weight.data_ptr() == model.wte.weight.data_ptr()
