"""The model against transformers, with random weights large enough that every detail shows."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from model.checkpoint import export_tensors
from model.config import GPTConfig
from model.convert import config_to_public
from model.gpt import GPT
from tests.tiny import make_config, make_gpt


def oracle(config: GPTConfig) -> GPT2LMHeadModel | LlamaForCausalLM:
    public = config_to_public(config)
    if config.family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**public)).double().eval()
    return LlamaForCausalLM(LlamaConfig(**public)).double().eval()


def pair(config: GPTConfig) -> tuple[GPT, GPT2LMHeadModel | LlamaForCausalLM]:
    """Our model and transformers' with the same float64 weights."""
    ours, theirs = make_gpt(config).double(), oracle(config)
    missing, unexpected = theirs.load_state_dict(export_tensors(ours), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    return ours, theirs


CONFIGS = [
    make_config("gpt2"),
    make_config("gpt2", activation="gelu", tie_embeddings=False, n_inner=80, norm_eps=1e-3),
    make_config("llama"),
    make_config("llama", tie_embeddings=False, n_kv_head=1, norm_eps=1e-3, rope_theta=500.0),
]


BARS = {"gpt2": 1e-10, "llama": 5e-6}
"""transformers' Llama normalises in float32 whatever the model's type, hence the wider bar."""


@pytest.mark.parametrize("config", CONFIGS, ids=["gpt2", "gpt2-variant", "llama", "llama-variant"])
def test_logits_equal_those_of_transformers(config: GPTConfig) -> None:
    ours, theirs = pair(config)
    idx = torch.randint(config.vocab_size, (3, 100))
    with torch.no_grad():
        difference = (ours.logits(ours(idx)) - theirs(idx).logits).abs().max()
    assert difference < BARS[config.family]


@pytest.mark.parametrize("config", CONFIGS, ids=["gpt2", "gpt2-variant", "llama", "llama-variant"])
def test_gradients_equal_those_of_transformers(config: GPTConfig) -> None:
    ours, theirs = pair(config)
    idx = torch.randint(config.vocab_size, (2, 40))

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())

    loss(ours.logits(ours(idx))).backward()
    loss(theirs(idx).logits).backward()
    theirs_grad = {
        "gpt2": lambda: theirs.transformer.wte.weight.grad,
        "llama": lambda: theirs.model.embed_tokens.weight.grad,
    }[config.family]()
    assert (ours.wte.weight.grad - theirs_grad).abs().max() < BARS[config.family]


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (CONFIGS[0], {"activation": "gelu"}),
        (CONFIGS[0], {"norm_eps": 1e-6}),
        (CONFIGS[2], {"norm_eps": 1e-6}),
        (CONFIGS[2], {"rope_theta": 9000.0}),
    ],
    ids=["activation", "gpt2-eps", "llama-eps", "rope-theta"],
)
def test_a_wrong_detail_shows_in_the_logits(config: GPTConfig, wrong: dict[str, object]) -> None:
    right, other = make_gpt(config).double(), GPT(config.model_copy(update=wrong)).double().eval()
    other.load_state_dict(right.state_dict())
    idx = torch.randint(config.vocab_size, (1, 60))
    with torch.no_grad():
        assert (right(idx) - other(idx)).abs().max() > 2 * BARS[config.family]


def test_a_missed_transpose_of_the_square_matrix_shows_in_the_logits() -> None:
    right = make_gpt(make_config("gpt2"))
    other = make_gpt(make_config("gpt2"))
    idx = torch.randint(384, (1, 20))
    with torch.no_grad():
        weight = other.h[0].attn.proj.weight
        weight.copy_(weight.T.clone())
        assert (right(idx) - other(idx)).abs().max() > 1e-3


def test_sequence_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="129 tokens do not fit the model's context of 128"):
        make_gpt(make_config("gpt2"))(torch.zeros(1, 129, dtype=torch.int64))


def test_gpt2_small_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        assert GPT(GPTConfig()).num_params() == 124_439_808
