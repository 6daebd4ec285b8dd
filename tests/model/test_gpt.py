"""The model against transformers in float64, with random weights large enough that every detail shows."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import public_views
from model.config import PRESETS
from model.gpt import GPT
from tests.tiny import KINDS, make_config, make_gpt
from tests.twins import pair

BAR = 1e-10
"""Largest difference to transformers, of logits and of gradients."""

CONFIGS = {
    **{kind: make_config(kind) for kind in KINDS},
    "gpt2-variant": make_config("gpt2", activation="gelu", tie_embeddings=False, n_inner=80, norm_eps=1e-3),
    "llama-variant": make_config("llama", tie_embeddings=False, n_kv_head=1, norm_eps=1e-3, rope_theta=500.0),
    "llama-biased": make_config("llama", attention_bias="all"),
    "qwen3-biased": make_config("qwen3", attention_bias="all", n_kv_head=4),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    ours, theirs = pair(CONFIGS[name])
    idx = torch.randint(384, (3, 100))
    with torch.no_grad():
        assert (ours.logits(ours(idx)) - theirs(idx).logits).abs().max() < BAR


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_all_weights_equal_those_of_transformers(name: str) -> None:
    ours, theirs = pair(CONFIGS[name])
    idx = torch.randint(384, (2, 40))

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())

    loss(ours.logits(ours(idx))).backward()
    loss(theirs(idx).logits).backward()
    for parameter in ours.parameters():
        parameter.data = parameter.grad
    gradients = dict(public_views(ours))
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    assert max((gradients[name] - expected[name]).abs().max() for name in expected) < BAR
    assert min(gradient.abs().max() for gradient in gradients.values()) > 1e3 * BAR


def rebuilt(**changes: object) -> Callable[[GPT], GPT]:
    """Make the mistake of building another shape around the same weights."""

    def make(right: GPT) -> GPT:
        wrong = GPT(right.config.model_copy(update=changes)).double().eval()
        wrong.load_state_dict(right.state_dict(), strict=False)
        return wrong

    return make


def permuted(heads: Callable[[Tensor], Tensor]) -> Callable[[GPT], GPT]:
    """Make the mistake of another order of rows, given as a permutation of (H, D), in all queries and keys."""

    def make(right: GPT) -> GPT:
        for block in right.h:
            q_size, kv_size, _ = (heads * block.attn.head_dim for heads in block.attn.num_heads)
            for first, size in ((0, q_size), (q_size, kv_size)):
                part = block.attn.qkv.weight.data[first : first + size]
                part.copy_(heads(part.unflatten(0, (-1, block.attn.head_dim))).flatten(0, 1).clone())
        return right

    return make


def tile_keys(right: GPT) -> GPT:
    """Make the mistake of giving query head i the keys of head i mod H_kv: swap queries 1 and 2, and what they add."""
    order = torch.arange(32).view(4, 8)[[0, 2, 1, 3]].flatten()
    for block in right.h:
        block.attn.qkv.weight.data[:32] = block.attn.qkv.weight.data[order]
        block.attn.proj.weight.data = block.attn.proj.weight.data[:, order]
    return right


def forget_transpose(right: GPT) -> GPT:
    """Make the mistake that no shape betrays: the square matrix as it is stored."""
    for block in right.h:
        block.attn.proj.weight.data = block.attn.proj.weight.data.T
    return right


def interleave(part: Tensor) -> Tensor:
    return part.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


MISTAKES: dict[str, tuple[str, Callable[[GPT], GPT]]] = {
    "gelu kind": ("gpt2", rebuilt(activation="gelu")),
    "eps of gpt2": ("gpt2", rebuilt(norm_eps=1e-6)),
    "missed transpose": ("gpt2", forget_transpose),
    "eps of llama": ("llama", rebuilt(norm_eps=1e-6)),
    "rope theta": ("llama", rebuilt(rope_theta=9000.0)),
    "rope layout": ("llama", permuted(interleave)),
    "tiled keys": ("llama", tile_keys),
    "unscaled rope": ("llama3", rebuilt(rope_scaling=None)),
    "missing bias of qkv": ("qwen2", rebuilt(attention_bias="none")),
    "missing bias of the output": ("llama-biased", rebuilt(attention_bias="qkv")),
    "missing query and key norm": ("qwen3", rebuilt(qk_norm=False)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_detail_shows_in_the_logits(mistake: str) -> None:
    name, make_wrong = MISTAKES[mistake]
    ours, theirs = pair(CONFIGS[name])
    idx = torch.randint(384, (1, 60))
    with torch.no_grad():
        expected = theirs(idx).logits
        assert (ours.logits(ours(idx)) - expected).abs().max() < BAR
        wrong = make_wrong(ours)
        assert (wrong.logits(wrong(idx)) - expected).abs().max() > 1e4 * BAR


def test_sequence_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="129 tokens do not fit the model's context of 128"):
        make_gpt(make_config("gpt2"))(torch.zeros(1, 129, dtype=torch.int64))


PUBLISHED_SIZES = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
}


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_presets_have_the_published_number_of_weights(name: str) -> None:
    with torch.device("meta"):
        assert GPT(PRESETS[name]).num_params() == PUBLISHED_SIZES[name]
