"""Tiny models for tests: small enough to be quick, with weights large enough that a wrong detail shows."""

import torch

from model.config import GPTConfig
from model.gpt import GPT


def make_config(family: str, **changes: object) -> GPTConfig:
    """A two-layer model of the given family; `llama` has grouped queries."""
    sizes: dict[str, object] = {"vocab_size": 384, "block_size": 128, "n_layer": 2, "n_head": 4, "n_embd": 32}
    if family == "llama":
        sizes["n_kv_head"] = 2
    return GPTConfig.model_validate({"family": family, **sizes, **changes})


def make_gpt(config: GPTConfig, *, seed: int = 0) -> GPT:
    """A model whose weights are large enough that a wrong detail shows in its logits."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
