"""Our config <-> the public (Hugging Face) `config.json`: the keys of each architecture that is one of our shapes.

Nothing is guessed: a key that asks for what this model does not compute is refused by name. It knows no tensors.
"""

from collections.abc import Mapping
from typing import Any

from model.config import GPTConfig, RopeScaling

PUBLIC_CLASSES = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""`model_type` of each public architecture that we read -> the first part of the names of its classes."""

PUBLIC_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def public_type(config: GPTConfig) -> str:
    """The `model_type` under which a model of this shape is written."""
    if config.family == "gpt2":
        return "gpt2"
    return "qwen3" if config.qk_norm else "qwen2" if config.attention_bias == "qkv" else "llama"


def architecture(config: GPTConfig, *, is_classifier: bool) -> str:
    """Name of the public class that computes what our model does."""
    causal = "LMHeadModel" if config.family == "gpt2" else "ForCausalLM"
    return PUBLIC_CLASSES[public_type(config)] + ("ForSequenceClassification" if is_classifier else causal)


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
    if not isinstance(model_type, str) or model_type not in PUBLIC_CLASSES:
        raise ValueError(f"model_type {model_type!r} is not supported; supported: {', '.join(PUBLIC_CLASSES)}")
    if public.get("quantization_config"):
        raise ValueError("quantization_config: quantized weights are not supported; take the model's original files")
    try:
        return _gpt2_from_public(public) if model_type == "gpt2" else _llama_from_public(public)
    except KeyError as missing:
        raise ValueError(f"key {missing} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a value is of the wrong type ({error})") from None


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
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError("rope_parameters: different ones for different layers are not supported")
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
    is_mistral = public["model_type"] == "mistral"
    window, context = public.get("sliding_window", 4096 if is_mistral else None), public["max_position_embeddings"]
    is_on = public.get("use_sliding_window", is_mistral)
    if is_on and window is not None and window < context:
        raise ValueError(
            f"sliding_window: {window} is not supported where it is shorter than the context of {context}; with "
            f"max_position_embeddings set to {window} the model can be used up to that length"
        )


def _refuse(public: Mapping[str, Any], key: str, unsupported: Any) -> None:
    if public.get(key, not unsupported) == unsupported:
        raise ValueError(f"{key}: {unsupported} is not supported")
