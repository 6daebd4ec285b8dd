"""The GPT itself: attention, MLP, block and model for the GPT-2 and the Llama family, on one device.

It does not know training, sampling, serving or files, nor how keys and values are cached or documents packed: an
`AttentionPlan` handed to `GPT.forward` decides what each token sees, and without one each row is attended causally.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GPTConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
}


class AttentionPlan(Protocol):
    """What each token of a batch sees, where that is more than the tokens before it in `idx`, or less."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        """Answer queries (B, H, T, D) from keys and values (B, H_kv, T, D) of one layer, in the queries' shape."""


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.dropout = config.dropout
        self.head_dim = config.head_dim
        self.num_heads = [config.n_head, config.num_kv_heads, config.num_kv_heads]
        has_bias = config.family == "gpt2" or config.attention_bias == "all"
        width = sum(self.num_heads) * config.head_dim
        self.qkv = nn.Linear(config.n_embd, width, bias=has_bias or config.attention_bias == "qkv")
        self.proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=has_bias)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, plan: AttentionPlan | None) -> Tensor:
        heads = self.qkv(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split(self.num_heads, dim=1)  # (B, H, T, D), (B, H_kv, T, D) twice
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        q, k = q.type_as(v), k.type_as(v)  # under autocast, norms and angles are float32
        dropout = self.dropout if self.training else 0.0
        if plan is not None:
            y = plan.attend(self.layer, q, k, v, dropout)
        else:
            grouped = k.shape[1] != q.shape[1]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, enable_gqa=grouped)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return out


class MLP(nn.Module):
    """GELU MLP of GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.n_embd, config.inner_dim)
        self.down = nn.Linear(config.inner_dim, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


class GatedMLP(nn.Module):
    """SwiGLU MLP of Llama (Shazeer 2020); gate and up share one matrix, gate first."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.n_embd, 2 * config.inner_dim, bias=False)
        self.down = nn.Linear(config.inner_dim, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, layer)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config) if config.family == "gpt2" else GatedMLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, plan: AttentionPlan | None) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), rotary, plan))
        out: Tensor = x + self.drop(self.mlp(self.ln_2(x)))
        return out


class GPT(nn.Module):
    """A decoder-only transformer language model; token ids in, hidden states or logits out."""

    rotary_table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.family == "gpt2" else None
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = make_norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        if config.family == "llama":
            self.register_buffer("rotary_table", make_rotary_table(config), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw GPT-2's initial weights: N(0, 0.02), residual projections smaller by sqrt(2 * n_layer)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith(("attn.proj", "mlp.down"))
                std = 0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, positions: Tensor | None = None, plan: AttentionPlan | None = None) -> Tensor:
        """Return hidden states after the last norm.

        Args:
            idx: token ids (B, T), int64. With a cache's plan, B is 1 and T runs over all rows of the plan.
            positions: place of each token in its own sequence (B, T); None counts from 0 along T.
            plan: what each token sees, for example cached or packed sequences; None attends causally within `idx`.

        Returns:
            (B, T, C).

        Raises:
            ValueError: the sequence is longer than `block_size`.
        """
        if positions is None:
            if idx.shape[1] > self.config.block_size:
                raise ValueError(f"{idx.shape[1]} tokens do not fit the model's context of {self.config.block_size}")
            positions = torch.arange(idx.shape[1], device=idx.device)[None]
        x = self.wte(idx)  # (B, T, C)
        rotary = None
        if self.wpe is not None:
            x = x + self.wpe(positions)
        else:
            cos, sin = self.rotary_table[:, positions].to(x.dtype).unsqueeze(2)  # each (B, 1, T, D)
            rotary = (cos, sin)
        x = self.drop(x)
        for block in self.h:
            x = block(x, rotary, plan)
        out: Tensor = self.ln_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., C) to next-token logits (..., V)."""
        out: Tensor = self.lm_head(hidden)
        return out

    def num_params(self) -> int:
        """Count the weights, shared ones once."""
        return sum(p.numel() for p in self.parameters())


def make_norm(config: GPTConfig) -> nn.Module:
    """LayerNorm for GPT-2, RMSNorm for Llama (Zhang and Sennrich 2019)."""
    norm = nn.LayerNorm if config.family == "gpt2" else nn.RMSNorm
    return norm(config.n_embd, eps=config.norm_eps)


def make_rotary_table(config: GPTConfig) -> Tensor:
    """Cosines and sines of every position (2, block_size, D), float32; the second half of D repeats the first.

    Su et al. 2021, equation 34, in the half-rotating layout of the public Llama checkpoints.
    """
    frequencies = rotary_frequencies(config)
    angles = torch.outer(torch.arange(config.block_size, dtype=torch.float32), frequencies).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])


def rotary_frequencies(config: GPTConfig) -> Tensor:
    """Radians per token of each pair (D / 2,), fastest first; slowed down as Llama 3 does it if the config asks.

    The order of operations is that of transformers, to the last bit: far positions multiply a difference.
    """
    frequencies = 1 / config.rope_theta ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_block_size / (2 * math.pi / frequencies)  # within the original context
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) of queries or keys (B, H, T, D) by its position's angle."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin
