"""Our names <-> the public (Hugging Face) names, for config keys and for tensors; the only file that knows both.

It handles plain values and never touches a tensor: `model.checkpoint` moves the data these tables describe.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model.config import GPTConfig, RopeScaling

PUBLIC_CLASSES = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""`model_type` of each public architecture that we read -> the first part of the names of its classes."""

PUBLIC_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


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


def public_type(config: GPTConfig) -> str:
    """The `model_type` under which a model of this shape is written."""
    if config.family == "gpt2":
        return "gpt2"
    return "qwen3" if config.qk_norm else "qwen2" if config.attention_bias == "qkv" else "llama"


def architecture(config: GPTConfig, *, is_classifier: bool) -> str:
    """Name of the public class that computes what our model does."""
    causal = "LMHeadModel" if config.family == "gpt2" else "ForCausalLM"
    return PUBLIC_CLASSES[public_type(config)] + ("ForSequenceClassification" if is_classifier else causal)


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
    """Add the `transformer.` prefix that some GPT-2 files leave out."""
    bare = config.family == "gpt2" and public_name.startswith(("wte.", "wpe.", "h.", "ln_f."))
    return f"transformer.{public_name}" if bare else public_name


def config_to_public(config: GPTConfig) -> dict[str, Any]:
    """The keys of a public `config.json` that describe the shape."""
    if config.family == "gpt2":
        activation = {"gelu_tanh": "gelu_new", "gelu": "gelu"}[config.activation]
        dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
        return {
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_positions": config.block_size,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "n_inner": config.n_inner,
            "activation_function": activation,
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": config.tie_embeddings,
            **dropout,
        }
    public = {
        "model_type": public_type(config),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.block_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.num_kv_heads,
        "hidden_size": config.n_embd,
        "head_dim": config.head_dim,
        "intermediate_size": config.inner_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        **_rope_to_public(config),
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if public["model_type"] != "llama":
        public["use_sliding_window"] = False
    if public["model_type"] != "qwen2":
        public["attention_bias"] = config.attention_bias == "all"
    if public["model_type"] == "llama":
        public["mlp_bias"] = False
    return public


def _rope_to_public(config: GPTConfig) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` are read by transformers 4, vLLM and llama.cpp, `rope_parameters` by v5."""
    scaling = config.rope_scaling
    if scaling is None:
        return {
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    scaled = {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_block_size,
    }
    theta = {"rope_theta": config.rope_theta}
    return {**theta, "rope_scaling": scaled, "rope_parameters": {**scaled, **theta}}


def config_from_public(public: Mapping[str, Any]) -> GPTConfig:
    """Read the shape from a public `config.json`.

    Raises:
        ValueError: a key is missing, or asks for something this model does not have; the message names it.
    """
    model_type = public.get("model_type")
    if model_type not in PUBLIC_CLASSES:
        raise ValueError(f"model_type {model_type!r} is not supported; supported: {', '.join(PUBLIC_CLASSES)}")
    try:
        return _gpt2_from_public(public) if model_type == "gpt2" else _llama_from_public(public)
    except KeyError as missing:
        raise ValueError(f"key {missing} is missing") from None


def _gpt2_from_public(public: Mapping[str, Any]) -> GPTConfig:
    _refuse(public, "scale_attn_weights", False)
    _refuse(public, "scale_attn_by_inverse_layer_idx", True)
    _refuse(public, "add_cross_attention", True)
    activation = public.get("activation_function", "gelu_new")
    if activation not in PUBLIC_ACTIVATIONS:
        raise ValueError(f"activation_function {activation!r} is not supported; use one of {list(PUBLIC_ACTIVATIONS)}")
    return GPTConfig(
        family="gpt2",
        vocab_size=public["vocab_size"],
        block_size=public["n_positions"] if "n_positions" in public else public["n_ctx"],
        n_layer=public["n_layer"],
        n_head=public["n_head"],
        n_embd=public["n_embd"],
        n_inner=public.get("n_inner"),
        activation=PUBLIC_ACTIVATIONS[activation],
        norm_eps=public.get("layer_norm_epsilon", 1e-5),
        dropout=public.get("resid_pdrop", 0.1),
        tie_embeddings=public.get("tie_word_embeddings", True),
    )


def _llama_from_public(public: Mapping[str, Any]) -> GPTConfig:
    model_type = public["model_type"]
    _refuse(public, "mlp_bias", True)
    _refuse_sliding_window(public)
    if public.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {public['hidden_act']!r} is not supported; the Llama family uses silu")
    rope_theta, rope_scaling = _rope_from_public(public)
    return GPTConfig(
        family="llama",
        vocab_size=public["vocab_size"],
        block_size=public["max_position_embeddings"],
        n_layer=public["num_hidden_layers"],
        n_head=public["num_attention_heads"],
        n_kv_head=public.get("num_key_value_heads"),
        n_embd=public["hidden_size"],
        n_head_dim=_head_dim_from_public(public),
        n_inner=public["intermediate_size"],
        norm_eps=public.get("rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        attention_bias="qkv" if model_type == "qwen2" else "all" if public.get("attention_bias") else "none",
        qk_norm=model_type == "qwen3",
        dropout=public.get("attention_dropout", 0.0),
        tie_embeddings=public.get("tie_word_embeddings", False),
    )


def _head_dim_from_public(public: Mapping[str, Any]) -> int | None:
    """None where it follows from the other sizes, so that equal shapes have equal configs."""
    head_dim: int | None = public.get("head_dim", 128 if public["model_type"] == "qwen3" else None)
    follows = head_dim is not None and head_dim * public["num_attention_heads"] == public["hidden_size"]
    return None if follows else head_dim


def _rope_from_public(public: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    rope = public.get("rope_parameters") or public.get("rope_scaling") or {}
    theta = rope.get("rope_theta", public.get("rope_theta", 10000.0))
    if rope.get("partial_rotary_factor", public.get("partial_rotary_factor")) not in (None, 1):
        raise ValueError("partial_rotary_factor: other than 1 is not supported")
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type == "default":
        return theta, None
    if rope_type != "llama3":
        raise ValueError(f"rope scaling of type {rope_type!r} is not supported; supported: default, llama3")
    return theta, RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_block_size=rope["original_max_position_embeddings"],
    )


def _refuse_sliding_window(public: Mapping[str, Any]) -> None:
    """A window that is off, or as long as the context, changes nothing; we compute no other."""
    window, context = public.get("sliding_window"), public["max_position_embeddings"]
    is_on = public.get("use_sliding_window", public["model_type"] == "mistral")
    if is_on and window is not None and window < context:
        raise ValueError(
            f"sliding_window: {window} is not supported where it is shorter than the context of {context}; with "
            f"max_position_embeddings set to {window} the model can be used up to that length"
        )


def _refuse(public: Mapping[str, Any], key: str, unsupported: Any) -> None:
    if public.get(key, not unsupported) == unsupported:
        raise ValueError(f"{key}: {unsupported} is not supported")
