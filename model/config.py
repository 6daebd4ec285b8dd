"""The shape of a GPT: one frozen config that covers the GPT-2 and the Llama family.

It does not know file formats; `model.public_config` translates it to and from public `config.json` keys.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["gpt2", "llama"]


class RopeScaling(BaseModel):
    """How Llama 3 stretches rotary positions beyond the context it was first trained on (Llama team 2024)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: float = Field(ge=1)
    """How much slower the slow frequencies turn."""
    low_freq_factor: float = Field(1.0, gt=0)
    """Frequencies with fewer turns than this within the original context are slowed down by the whole factor."""
    high_freq_factor: float = Field(4.0, gt=0)
    """Frequencies with more turns than this keep their speed; those between are blended."""
    original_block_size: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("low_freq_factor must be less than high_freq_factor")
        return self


class GPTConfig(BaseModel):
    """Sizes and switches of one model. The family decides norm, positions and MLP together.

    Llama, Mistral, SmolLM, Qwen2 and Qwen3 are all the llama family and differ in the switches alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Family = "gpt2"
    """`gpt2`: LayerNorm, learned positions, GELU. `llama`: RMSNorm, rotary positions, SwiGLU."""
    vocab_size: int = Field(50257, ge=1)
    block_size: int = Field(1024, ge=1)
    """Context length in tokens."""
    n_layer: int = Field(12, ge=1)
    n_head: int = Field(12, ge=1)
    n_kv_head: int | None = Field(None, ge=1)
    """Key and value heads; None means one for each query head (no grouping)."""
    n_embd: int = Field(768, ge=1)
    n_head_dim: int | None = Field(None, ge=1)
    """Width of one head; None means `n_embd / n_head`. The llama family may have another."""
    n_inner: int | None = Field(None, ge=1)
    """Width inside the MLP; None means `4 * n_embd` (gpt2) or two thirds of that, rounded up to 16 (llama)."""
    activation: Literal["gelu_tanh", "gelu"] = "gelu_tanh"
    """GELU kind of the gpt2 family: OpenAI's tanh approximation or the exact one. The llama family uses SwiGLU."""
    norm_eps: float = Field(1e-5, gt=0)
    rope_theta: float = Field(10000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    attention_bias: Literal["none", "qkv", "all"] = "none"
    """Which projections of the llama family's attention add a bias: Qwen2's queries, keys and values, or the output
    as well. The gpt2 family has biases everywhere."""
    qk_norm: bool = False
    """Whether the llama family normalises each query and key before turning it, as Qwen3 does."""
    dropout: float = Field(0.0, ge=0, lt=1)
    tie_embeddings: bool = True
    """Whether `lm_head` shares its weights with `wte`."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.n_head_dim is None and self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        if self.n_head % self.num_kv_heads:
            raise ValueError(f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.num_kv_heads})")
        if self.family == "gpt2" and self.num_kv_heads != self.n_head:
            raise ValueError("n_kv_head: the gpt2 family has one key head per query head; leave it out")
        if self.family == "llama" and self.head_dim % 2:
            raise ValueError(f"the width of a head ({self.head_dim}) must be even for rotary positions")
        return self

    @model_validator(mode="after")
    def _check_switches(self) -> Self:
        for name in ("n_head_dim", "rope_scaling", "attention_bias", "qk_norm"):
            if self.family == "gpt2" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: only the llama family has it; leave it out")
        if self.qk_norm and self.attention_bias == "qkv":
            raise ValueError("attention_bias: with qk_norm it is none or all, as public models have it")
        return self

    @property
    def head_dim(self) -> int:
        return self.n_head_dim if self.n_head_dim is not None else self.n_embd // self.n_head

    @property
    def num_kv_heads(self) -> int:
        return self.n_kv_head if self.n_kv_head is not None else self.n_head

    @property
    def inner_dim(self) -> int:
        if self.n_inner is not None:
            return self.n_inner
        return 4 * self.n_embd if self.family == "gpt2" else -(-8 * self.n_embd // 48) * 16


PRESETS: dict[str, GPTConfig] = {
    "gpt2-small": GPTConfig(),
    "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": GPTConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": GPTConfig(n_layer=48, n_head=25, n_embd=1600),
    "llama-2-7b": GPTConfig(
        family="llama",
        vocab_size=32000,
        block_size=4096,
        n_layer=32,
        n_head=32,
        n_embd=4096,
        n_inner=11008,
        tie_embeddings=False,
    ),
    "llama-3.2-1b": GPTConfig(
        family="llama",
        vocab_size=128256,
        block_size=131072,
        n_layer=16,
        n_head=32,
        n_kv_head=8,
        n_embd=2048,
        n_inner=8192,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor=32.0, original_block_size=8192),
    ),
    "smollm2-135m": GPTConfig(
        family="llama",
        vocab_size=49152,
        block_size=8192,
        n_layer=30,
        n_head=9,
        n_kv_head=3,
        n_embd=576,
        n_inner=1536,
        rope_theta=100000.0,
    ),
    "qwen3-0.6b": GPTConfig(
        family="llama",
        vocab_size=151936,
        block_size=40960,
        n_layer=28,
        n_head=16,
        n_kv_head=8,
        n_embd=1024,
        n_head_dim=128,
        n_inner=3072,
        norm_eps=1e-6,
        rope_theta=1000000.0,
        qk_norm=True,
    ),
    "tiny-gpt2": GPTConfig(vocab_size=512, block_size=128, n_layer=2, n_head=4, n_embd=64),
    "tiny-llama": GPTConfig(
        family="llama", vocab_size=512, block_size=128, n_layer=2, n_head=4, n_kv_head=2, n_embd=64
    ),
}
"""Named shapes. The GPT-2 sizes are those of Radford et al. 2019, table 2, as corrected by OpenAI's release; the others
are what the `config.json` of the public checkpoints says."""
