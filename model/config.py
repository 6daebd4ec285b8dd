"""The shape of a GPT: one frozen config that covers the GPT-2 and the Llama family.

It does not know file formats; `model.convert` translates it to and from public `config.json` keys.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["gpt2", "llama"]


class GPTConfig(BaseModel):
    """Sizes and switches of one model. The family decides norm, positions and MLP together."""

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
    n_inner: int | None = Field(None, ge=1)
    """Width inside the MLP; None means `4 * n_embd` (gpt2) or two thirds of that, rounded up to 16 (llama)."""
    activation: Literal["gelu_tanh", "gelu"] = "gelu_tanh"
    """GELU kind of the gpt2 family: OpenAI's tanh approximation or the exact one. The llama family uses SwiGLU."""
    norm_eps: float = Field(1e-5, gt=0)
    rope_theta: float = Field(10000.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    tie_embeddings: bool = True
    """Whether `lm_head` shares its weights with `wte`."""

    @model_validator(mode="after")
    def _check_divisions(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        if self.n_head % self.num_kv_heads:
            raise ValueError(f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.num_kv_heads})")
        if self.family == "gpt2" and self.num_kv_heads != self.n_head:
            raise ValueError("n_kv_head: the gpt2 family has one key head per query head; leave it out")
        if self.family == "llama" and self.head_dim % 2:
            raise ValueError(f"n_embd / n_head ({self.head_dim}) must be even for rotary positions")
        return self

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

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
    "tiny-gpt2": GPTConfig(vocab_size=512, block_size=128, n_layer=2, n_head=4, n_embd=64),
    "tiny-llama": GPTConfig(
        family="llama", vocab_size=512, block_size=128, n_layer=2, n_head=4, n_kv_head=2, n_embd=64
    ),
}
"""Named shapes. The GPT-2 sizes are those of Radford et al. 2019, table 2, as corrected by OpenAI's release."""
