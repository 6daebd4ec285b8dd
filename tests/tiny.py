"""Tiny models for tests: small enough to be quick, with weights large enough that a wrong detail shows."""

import torch

from model.config import GPTConfig
from model.gpt import GPT

KINDS: dict[str, dict[str, object]] = {
    "gpt2": {"family": "gpt2"},
    "llama": {"family": "llama", "n_kv_head": 2},
    "llama3": {
        "family": "llama",
        "n_kv_head": 2,
        "rope_theta": 500.0,
        "rope_scaling": {"factor": 8.0, "original_block_size": 64},  # one frequency kept, one blended, two slowed down
        "tie_embeddings": False,
    },
    "qwen2": {"family": "llama", "n_kv_head": 2, "attention_bias": "qkv", "norm_eps": 1e-6},
    "qwen3": {"family": "llama", "n_kv_head": 2, "qk_norm": True, "n_head_dim": 12},
}
"""Every kind of model there is, as switches of the config."""


def make_config(kind: str, **changes: object) -> GPTConfig:
    """A two-layer model of one of the `KINDS`; all but `gpt2` have grouped queries."""
    sizes: dict[str, object] = {"vocab_size": 384, "block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 32}
    return GPTConfig.model_validate({**sizes, **KINDS[kind], **changes})


def make_gpt(config: GPTConfig, *, seed: int = 0) -> GPT:
    """A model whose weights are large enough that a wrong detail shows in its logits."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
