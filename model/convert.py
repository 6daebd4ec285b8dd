"""Our parameters <-> the public (Hugging Face) tensors: what they are called and how they are laid out.

It handles plain values and never touches a tensor: `model.checkpoint` moves the data these tables describe.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.config import GPTConfig

BODIES = {
    "gpt2": ("transformer.", ("wte.", "wpe.", "h.", "ln_f.")),
    "llama": ("model.", ("embed_tokens.", "layers.", "norm.")),
}
"""Family -> the public prefix of its body, and what follows it."""


@dataclass(frozen=True, slots=True)
class PublicTensor:
    """One tensor of a public file and the place in our model that it is."""

    public_name: str
    name: str
    """Our parameter."""
    shape: tuple[int, ...]
    """As the public file stores it."""
    is_transposed: bool = False
    """GPT-2's public files store the matrices of linear layers as (in, out)."""
    first_row: int = 0
    """Where this tensor starts in a parameter of ours that joins several public ones along its rows."""


def public_tensors(config: GPTConfig, *, num_labels: int | None = None) -> Iterator[PublicTensor]:
    """List every tensor that a checkpoint of this shape holds, no more and no fewer.

    Args:
        config: the model's shape.
        num_labels: outputs of the classification head; None for a language model.
    """
    prefix = "gpt." if num_labels is not None else ""
    body = _gpt2_body(config, prefix) if config.family == "gpt2" else _llama_body(config, prefix)
    yield from body
    if num_labels is not None:
        yield PublicTensor("score.weight", "score.weight", (num_labels, config.n_embd))
    elif not config.tie_embeddings:
        yield PublicTensor("lm_head.weight", "lm_head.weight", (config.vocab_size, config.n_embd))


def _gpt2_body(config: GPTConfig, prefix: str) -> Iterator[PublicTensor]:
    width, inner = config.n_embd, config.inner_dim
    yield PublicTensor("transformer.wte.weight", f"{prefix}wte.weight", (config.vocab_size, width))
    yield PublicTensor("transformer.wpe.weight", f"{prefix}wpe.weight", (config.block_size, width))
    linears = [
        ("attn.c_attn", "attn.qkv", width, 3 * width),
        ("attn.c_proj", "attn.proj", width, width),
        ("mlp.c_fc", "mlp.up", width, inner),
        ("mlp.c_proj", "mlp.down", inner, width),
    ]
    for layer in range(config.n_layer):
        theirs, ours = f"transformer.h.{layer}.", f"{prefix}h.{layer}."
        for norm in ("ln_1", "ln_2"):
            for part in ("weight", "bias"):
                yield PublicTensor(f"{theirs}{norm}.{part}", f"{ours}{norm}.{part}", (width,))
        for their_name, our_name, size_in, size_out in linears:
            yield PublicTensor(f"{theirs}{their_name}.weight", f"{ours}{our_name}.weight", (size_in, size_out), True)
            yield PublicTensor(f"{theirs}{their_name}.bias", f"{ours}{our_name}.bias", (size_out,))
    for part in ("weight", "bias"):
        yield PublicTensor(f"transformer.ln_f.{part}", f"{prefix}ln_f.{part}", (width,))


def _llama_body(config: GPTConfig, prefix: str) -> Iterator[PublicTensor]:
    yield PublicTensor("model.embed_tokens.weight", f"{prefix}wte.weight", (config.vocab_size, config.n_embd))
    for layer in range(config.n_layer):
        theirs, ours = f"model.layers.{layer}.", f"{prefix}h.{layer}."
        yield PublicTensor(f"{theirs}input_layernorm.weight", f"{ours}ln_1.weight", (config.n_embd,))
        yield from _llama_attention(config, f"{theirs}self_attn.", f"{ours}attn.")
        yield PublicTensor(f"{theirs}post_attention_layernorm.weight", f"{ours}ln_2.weight", (config.n_embd,))
        yield from _llama_mlp(config, f"{theirs}mlp.", f"{ours}mlp.")
    yield PublicTensor("model.norm.weight", f"{prefix}ln_f.weight", (config.n_embd,))


def _llama_attention(config: GPTConfig, theirs: str, ours: str) -> Iterator[PublicTensor]:
    width = config.n_head * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim
    joined = [("q_proj", width, 0), ("k_proj", kv_width, width), ("v_proj", kv_width, width + kv_width)]
    for name, rows, first in joined:
        yield PublicTensor(f"{theirs}{name}.weight", f"{ours}qkv.weight", (rows, config.n_embd), first_row=first)
        if config.attention_bias != "none":
            yield PublicTensor(f"{theirs}{name}.bias", f"{ours}qkv.bias", (rows,), first_row=first)
    yield PublicTensor(f"{theirs}o_proj.weight", f"{ours}proj.weight", (config.n_embd, width))
    if config.attention_bias == "all":
        yield PublicTensor(f"{theirs}o_proj.bias", f"{ours}proj.bias", (config.n_embd,))
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            yield PublicTensor(f"{theirs}{name}.weight", f"{ours}{name}.weight", (config.head_dim,))


def _llama_mlp(config: GPTConfig, theirs: str, ours: str) -> Iterator[PublicTensor]:
    width, inner = config.n_embd, config.inner_dim
    yield PublicTensor(f"{theirs}gate_proj.weight", f"{ours}gate_up.weight", (inner, width))
    yield PublicTensor(f"{theirs}up_proj.weight", f"{ours}gate_up.weight", (inner, width), first_row=inner)
    yield PublicTensor(f"{theirs}down_proj.weight", f"{ours}down.weight", (width, inner))


def is_ignored(public_name: str) -> bool:
    """Whether a public file may hold this tensor without our needing it: constants that old writers stored."""
    return public_name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))


def canonical_name(public_name: str, config: GPTConfig) -> str:
    """Add the `transformer.` or `model.` that files written from the bare body of a model leave out."""
    prefix, parts = BODIES[config.family]
    return prefix + public_name if public_name.startswith(parts) else public_name
