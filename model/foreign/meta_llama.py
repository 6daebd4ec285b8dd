"""Llama in Meta's own files, `consolidated.00.pth` beside `params.json`: rotary pairs stand side by side there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.config import GPTConfig
from model.convert import PublicTensor
from model.directory import CheckpointError, read_json
from model.foreign.foreign_model import ForeignModel, count_layers, is_same, make_config, sizes_of, tensors_of

PARAMS_FILE = "params.json"


def is_meta_llama(content: Mapping[str, Any]) -> bool:
    """Whether this is a Llama of Meta."""
    return "tok_embeddings.weight" in content


def open_meta_llama(file: Path, content: Mapping[str, Any], block_size: int | None) -> ForeignModel:
    """Describe a Llama of Meta.

    Raises:
        CheckpointError: it is cut for several devices, scales its rotary frequencies by a factor that is written
            nowhere, lacks a tensor or a parameter, or `block_size` is needed.
    """
    if len(parts := sorted(file.parent.glob("consolidated.*.pth"))) > 1:
        raise CheckpointError(
            f"{parts[1]}: models cut for several devices are not supported; take the Hugging Face files"
        )
    params = read_json(file.parent / PARAMS_FILE)
    if params.get("use_scaled_rope"):
        raise CheckpointError(
            f"{file.parent / PARAMS_FILE}: use_scaled_rope: the factor is written nowhere; take the Hugging Face files"
        )
    if block_size is None:
        raise CheckpointError(f"--block-size: {file} does not tell it; Llama 2 has 4096, Llama 3 has 8192")
    missing = {"n_heads", "norm_eps"} - params.keys()
    if missing:
        raise CheckpointError(f"{file.parent / PARAMS_FILE}: key {missing.pop()!r} is missing")
    state = tensors_of(file, content)
    tokens, inner, _ = sizes_of(
        file, state, "tok_embeddings.weight", "layers.0.feed_forward.w1.weight", "output.weight"
    )
    is_tied = is_same(state["tok_embeddings.weight"], state["output.weight"])
    config = make_config(
        file,
        family="llama",
        vocab_size=tokens[0],
        block_size=block_size,
        n_layer=count_layers(state, "layers"),
        n_head=params["n_heads"],
        n_kv_head=params.get("n_kv_heads"),
        n_embd=tokens[1],
        n_inner=inner[0],
        norm_eps=params["norm_eps"],
        rope_theta=params.get("rope_theta", 10000.0),
        tie_embeddings=is_tied,
    )
    stored = {name: tensor for name, tensor in state.items() if not (is_tied and name == "output.weight")}
    return ForeignModel("Meta's Llama", file, config, tuple(_tensors(config)), stored, has_paired_heads=True)


def _tensors(config: GPTConfig) -> Iterator[PublicTensor]:
    width, inner = config.n_embd, config.inner_dim
    q_width, kv_width = config.n_head * config.head_dim, config.num_kv_heads * config.head_dim
    yield PublicTensor("tok_embeddings.weight", "wte.weight", (config.vocab_size, width))
    for layer in range(config.n_layer):
        theirs, ours = f"layers.{layer}.", f"h.{layer}."
        qkv, gate_up = f"{ours}attn.qkv.weight", f"{ours}mlp.gate_up.weight"
        yield PublicTensor(f"{theirs}attention_norm.weight", f"{ours}ln_1.weight", (width,))
        yield PublicTensor(f"{theirs}attention.wq.weight", qkv, (q_width, width))
        yield PublicTensor(f"{theirs}attention.wk.weight", qkv, (kv_width, width), first_row=q_width)
        yield PublicTensor(f"{theirs}attention.wv.weight", qkv, (kv_width, width), first_row=q_width + kv_width)
        yield PublicTensor(f"{theirs}attention.wo.weight", f"{ours}attn.proj.weight", (width, q_width))
        yield PublicTensor(f"{theirs}ffn_norm.weight", f"{ours}ln_2.weight", (width,))
        yield PublicTensor(f"{theirs}feed_forward.w1.weight", gate_up, (inner, width))
        yield PublicTensor(f"{theirs}feed_forward.w3.weight", gate_up, (inner, width), first_row=inner)
        yield PublicTensor(f"{theirs}feed_forward.w2.weight", f"{ours}mlp.down.weight", (width, inner))
    yield PublicTensor("norm.weight", "ln_f.weight", (width,))
    if not config.tie_embeddings:
        yield PublicTensor("output.weight", "lm_head.weight", (config.vocab_size, width))
