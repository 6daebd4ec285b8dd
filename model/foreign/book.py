"""`GPTModel` of Raschka's "Build a Large Language Model (From Scratch)", saved as `.pth`; its faster variant too.

The file tells everything but the number of heads, which the sizes of GPT-2 give away.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import GPTConfig
from model.convert import PublicTensor
from model.directory import CheckpointError
from model.foreign.foreign_model import ForeignModel, count_layers, is_same, make_config, sizes_of, tensors_of

HEADS = {768: 12, 1024: 16, 1280: 20, 1600: 25}
"""Width of each size of GPT-2 -> attention heads."""


def is_book(content: Mapping[str, Any]) -> bool:
    """Whether this is the book's model, alone or beside its optimizer."""
    state = content.get("model_state_dict", content)
    return isinstance(state, Mapping) and "trf_blocks.0.ff.layers.0.weight" in state


def open_book(file: Path, content: Mapping[str, Any], n_head: int | None) -> ForeignModel:
    """Describe a model of the book.

    Raises:
        CheckpointError: a tensor is missing, or `n_head` is needed.
    """
    state = tensors_of(file, content.get("model_state_dict", content))
    tokens, positions, inner, _ = sizes_of(
        file, state, "tok_emb.weight", "pos_emb.weight", "trf_blocks.0.ff.layers.0.weight", "out_head.weight"
    )
    n_head = n_head or HEADS.get(tokens[1])
    if n_head is None:
        raise CheckpointError(f"--n-head: {file} does not tell it; give the n_heads that the model was built with")
    is_tied = is_same(state["tok_emb.weight"], state["out_head.weight"])
    config = make_config(
        file,
        family="gpt2",
        vocab_size=tokens[0],
        block_size=positions[0],
        n_layer=count_layers(state, "trf_blocks"),
        n_head=n_head,
        n_embd=tokens[1],
        n_inner=None if inner[0] == 4 * tokens[1] else inner[0],
        tie_embeddings=is_tied,
    )
    stored = {name: tensor for name, tensor in state.items() if not (is_tied and name == "out_head.weight")}
    return ForeignModel("the book's GPTModel", file, config, tuple(_tensors(config, state)), stored)


def _tensors(config: GPTConfig, state: Mapping[str, Tensor]) -> Iterator[PublicTensor]:
    width = config.n_embd
    norm = ("scale", "shift") if "final_norm.scale" in state else ("weight", "bias")
    yield PublicTensor("tok_emb.weight", "wte.weight", (config.vocab_size, width))
    yield PublicTensor("pos_emb.weight", "wpe.weight", (config.block_size, width))
    for layer in range(config.n_layer):
        theirs, ours = f"trf_blocks.{layer}.", f"h.{layer}."
        yield from _layer(config, state, theirs, ours)
        for their_norm, our_norm in (("norm1", "ln_1"), ("norm2", "ln_2")):
            yield PublicTensor(f"{theirs}{their_norm}.{norm[0]}", f"{ours}{our_norm}.weight", (width,))
            yield PublicTensor(f"{theirs}{their_norm}.{norm[1]}", f"{ours}{our_norm}.bias", (width,))
    yield PublicTensor(f"final_norm.{norm[0]}", "ln_f.weight", (width,))
    yield PublicTensor(f"final_norm.{norm[1]}", "ln_f.bias", (width,))
    if not config.tie_embeddings:
        yield PublicTensor("out_head.weight", "lm_head.weight", (config.vocab_size, width))


def _layer(config: GPTConfig, state: Mapping[str, Tensor], theirs: str, ours: str) -> Iterator[PublicTensor]:
    """Linear layers; the faster variant joins queries, keys and values as we do, and names their outlet otherwise."""
    width, inner = config.n_embd, config.inner_dim
    is_joined = f"{theirs}att.qkv.weight" in state
    rows = 3 * width if is_joined else width
    names = ["att.qkv"] if is_joined else ["att.W_query", "att.W_key", "att.W_value"]
    for i, name in enumerate(names):
        yield PublicTensor(f"{theirs}{name}.weight", f"{ours}attn.qkv.weight", (rows, width), first_row=i * rows)
        if f"{theirs}{names[0]}.bias" in state:
            yield PublicTensor(f"{theirs}{name}.bias", f"{ours}attn.qkv.bias", (rows,), first_row=i * rows)
    linears = [
        ("att.proj" if is_joined else "att.out_proj", "attn.proj", width, width),
        ("ff.layers.0", "mlp.up", inner, width),
        ("ff.layers.2", "mlp.down", width, inner),
    ]
    for their_name, our_name, size_out, size_in in linears:
        yield PublicTensor(f"{theirs}{their_name}.weight", f"{ours}{our_name}.weight", (size_out, size_in))
        yield PublicTensor(f"{theirs}{their_name}.bias", f"{ours}{our_name}.bias", (size_out,))
