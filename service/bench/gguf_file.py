"""A GPT-2 checkpoint of ours as llama.cpp reads it: one GGUF file, matrices in its 8-bit format of blocks of 32.

llama.cpp's own converter refuses vocabularies that it does not know, such as the benchmark's.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.checkpoint import load_gpt

NAMES = {
    "ln_1": "attn_norm",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
"""Our parts of a block to GGUF's."""
NORMAL, CONTROL = 1, 3
"""GGUF's kinds of token."""


def write_gguf(checkpoint: Path, path: Path) -> None:
    """Write the file."""
    import gguf

    model = load_gpt(checkpoint)
    config = model.config
    writer: Any = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner_dim)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.norm_eps)
    add_vocabulary(writer, json.loads((checkpoint / "tokenizer.json").read_text()))
    for name, tensor in named_tensors(model):
        values = tensor.detach().float().numpy()
        is_matrix = tensor.ndim == 2 and name != "position_embd.weight"
        kind = gguf.GGMLQuantizationType.Q8_0 if is_matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, spec: dict[str, Any]) -> None:
    """Hand over a byte-level BPE vocabulary whose one added token is its end."""
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].__getitem__)
    (end,) = (added["id"] for added in spec["added_tokens"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if i == end else NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in spec["model"]["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight under GGUF's name; a tied head is left out, as there."""
    ours = model.state_dict()
    yield "token_embd.weight", ours["wte.weight"]
    yield "position_embd.weight", ours["wpe.weight"]
    for layer in range(len(model.h)):  # type: ignore[arg-type]
        for name, public in NAMES.items():
            for kind in ("weight", "bias"):
                yield f"blk.{layer}.{public}.{kind}", ours[f"h.{layer}.{name}.{kind}"]
    yield "output_norm.weight", ours["ln_f.weight"]
    yield "output_norm.bias", ours["ln_f.bias"]
