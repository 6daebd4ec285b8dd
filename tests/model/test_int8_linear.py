"""Linear layers with 8-bit weights against the plain ones they replace."""

import copy

import pytest
import torch
from torch import nn

from model.cpu_linear import pack_linears
from model.int8_linear import Int8Linear, make_fbgemm_product, make_onednn_product, quantize_rows
from tests.tiny import KINDS, make_config, make_gpt


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(96, 70)


@pytest.mark.parametrize("num_rows", [1, 7, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_eight_bits_are_near_the_plain_layer_whatever_the_size_of_a_row(num_rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(96, 70, bias=bias)
    x = torch.randn(1, num_rows, 96) * torch.logspace(-4, 4, num_rows)[:, None]
    with torch.inference_mode():
        rounded, exact = Int8Linear(linear)(x), linear(x)
    assert ((rounded - exact).norm(dim=-1) < 0.02 * exact.norm(dim=-1)).all()


def test_a_token_has_the_same_bits_alone_and_beside_others(linear):
    x = torch.randn(1, 33, 96)
    x[0, 3] *= 1000
    with torch.inference_mode():
        layer = Int8Linear(linear)
        together = layer(x)
        assert all(torch.equal(layer(x[:, i : i + 1]), together[:, i : i + 1]) for i in range(33))


def test_a_row_of_zeros_gives_the_bias(linear):
    with torch.inference_mode():
        assert torch.equal(Int8Linear(linear)(torch.zeros(2, 96)), linear.bias.expand(2, -1))


def test_every_weight_is_off_by_half_a_level_at_most_and_a_channel_of_zeros_stays_zero():
    torch.manual_seed(0)
    weight = torch.randn(70, 96)
    weight[4] = 0
    whole, scales = quantize_rows(weight)
    assert ((whole * scales[:, None] - weight).abs() <= scales[:, None] * 0.5001).all()
    assert not whole[4].any()


def test_both_products_multiply_the_same_integers(linear):
    parts = quantize_rows(linear.weight.detach())
    x = torch.rand(9, 96) * 2 - 1
    torch.testing.assert_close(make_fbgemm_product(*parts)(x), make_onednn_product(*parts)(x))


def test_packing_warns_of_nothing_and_leaves_the_library_as_it_was(linear):
    engine = torch.backends.quantized.engine
    Int8Linear(linear)  # warnings are errors in tests
    assert torch.backends.quantized.engine == engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_model_of_eight_bits_keeps_its_embedding_and_nearly_its_logits(kind, tie_embeddings):
    model = make_gpt(make_config(kind, tie_embeddings=tie_embeddings))
    packed = copy.deepcopy(model)
    pack_linears(packed, "int8")
    assert not any(isinstance(module, nn.Linear) for module in packed.modules())
    assert torch.equal(packed.wte.weight, model.wte.weight)
    idx = torch.arange(50)[None]
    with torch.inference_mode():
        rounded, exact = packed.logits(packed(idx)), model.logits(model(idx))
    assert (rounded - exact).norm() < 0.05 * exact.norm()
