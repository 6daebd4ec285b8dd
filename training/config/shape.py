"""Sizes of a model trained from scratch."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from model.config import Family, GPTConfig


class ModelShape(BaseModel):
    """Sizes of a model trained from scratch; the tokenizer brings the vocabulary."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    family: Family = "llama"
    """`gpt2` (LayerNorm, learned positions, GELU) or `llama` (RMSNorm, rotary positions, SwiGLU)."""
    block_size: PositiveInt = 128
    """Context length in tokens."""
    n_layer: PositiveInt = 4
    """Transformer layers."""
    n_head: PositiveInt = 4
    """Attention heads."""
    n_kv_head: PositiveInt | None = None
    """Key and value heads; left out: as many as `n_head`."""
    n_embd: PositiveInt = 128
    """Width of the hidden states."""
    n_inner: PositiveInt | None = None
    """Width inside the MLP; left out: four times `n_embd`, or two thirds of that for the gated MLP of `llama`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations zeroed while training."""
    tie_embeddings: bool = True
    """Share the weights of the embedding and of the output layer."""
    qk_norm: bool = False
    """Normalize queries and keys in each head, as Qwen3 does: steadier at high learning rates."""
    vocab_multiple: PositiveInt = 1
    """Round the vocabulary up to a multiple of this; GPUs like 64."""
    embedding_std: float = Field(0.02, gt=0)
    """Spread of the initial embeddings; 1, PyTorch's and the book's, learns a short text by heart in few steps."""

    def build(self, vocab_size: int, preset: GPTConfig | None = None) -> GPTConfig:
        """Return the model config of this shape for a vocabulary.

        Args:
            vocab_size: of the tokenizer; rounded up to `vocab_multiple`.
            preset: a named shape, of which only what was set here is replaced.

        Raises:
            ValueError: the sizes do not fit together.
        """
        padded = -(-vocab_size // self.vocab_multiple) * self.vocab_multiple
        own = self.model_dump(exclude={"vocab_multiple", "embedding_std"}, exclude_unset=preset is not None)
        try:
            return GPTConfig.model_validate({**(preset.model_dump() if preset else {}), **own, "vocab_size": padded})
        except ValidationError as error:
            raise ValueError(f"--model: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
