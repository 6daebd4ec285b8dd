"""Model files as nanoGPT, the book and Meta write them, each with an oracle that has the same weights."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

IDX = torch.arange(60).reshape(2, 30) % 384
MODEL_ARGS = {"block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 32, "dropout": 0.1}


def gpt2(activation: str, *, is_tied: bool, vocab_size: int = 384) -> GPT2LMHeadModel:
    """transformers' GPT-2 in float64, with weights large enough that a wrong detail shows."""
    torch.manual_seed(0)
    sizes = {"vocab_size": vocab_size, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**sizes, activation_function=activation, tie_word_embeddings=is_tied))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.double().eval()


def linear_state(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """Its weights with every matrix as a linear layer holds it, (out, in)."""
    matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: t.T.contiguous() if name.endswith(matrices) else t for name, t in model.state_dict().items()}


def write_nanogpt(folder: Path, *, has_bias: bool, vocab_size: int = 384) -> GPT2LMHeadModel:
    """Write what nanoGPT saves of a compiled model."""
    model = gpt2("gelu", is_tied=True, vocab_size=vocab_size)
    state = linear_state(model)
    if not has_bias:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.zero_()
        state = {name: tensor for name, tensor in state.items() if not name.endswith(".bias")}
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    args = {**MODEL_ARGS, "vocab_size": vocab_size, "bias": has_bias}
    training = {"optimizer": optimizer, "iter_num": 5, "best_val_loss": torch.tensor(1.9), "config": {"out_dir": "o"}}
    torch.save({"model": compiled, "model_args": args, **training}, folder / "ckpt.pt")
    return model


def write_book(folder: Path, *, has_qkv_bias: bool, is_joined: bool, is_tied: bool = False) -> GPT2LMHeadModel:
    """Write the state of the book's GPTModel, or of its faster variant with joined queries, keys and values."""
    model = gpt2("gelu_new", is_tied=is_tied)
    if not has_qkv_bias:
        for block in model.transformer.h:
            block.attn.c_attn.bias.data.zero_()
    state = linear_state(model)
    scale, shift = ("weight", "bias") if is_joined else ("scale", "shift")
    book = {"tok_emb.weight": state["transformer.wte.weight"], "pos_emb.weight": state["transformer.wpe.weight"]}

    def put(theirs: str, hf: str, weight: str = "weight", bias: str = "bias") -> None:
        book[f"{theirs}.{weight}"] = state[f"transformer.{hf}.weight"]
        book[f"{theirs}.{bias}"] = state[f"transformer.{hf}.bias"]

    for i in range(2):
        put(f"trf_blocks.{i}.att.qkv", f"h.{i}.attn.c_attn")
        put(f"trf_blocks.{i}.att.{'proj' if is_joined else 'out_proj'}", f"h.{i}.attn.c_proj")
        put(f"trf_blocks.{i}.ff.layers.0", f"h.{i}.mlp.c_fc")
        put(f"trf_blocks.{i}.ff.layers.2", f"h.{i}.mlp.c_proj")
        put(f"trf_blocks.{i}.norm1", f"h.{i}.ln_1", scale, shift)
        put(f"trf_blocks.{i}.norm2", f"h.{i}.ln_2", scale, shift)
        for part in ("weight", "bias"):
            joined = book.pop(f"trf_blocks.{i}.att.qkv.{part}")
            names = ["qkv"] if is_joined else ["W_query", "W_key", "W_value"]
            if part == "weight" or has_qkv_bias:
                pieces = joined.chunk(len(names))
                book |= {f"trf_blocks.{i}.att.{name}.{part}": p.clone() for name, p in zip(names, pieces, strict=True)}
        if not is_joined:
            book[f"trf_blocks.{i}.att.mask"] = torch.triu(torch.ones(64, 64), diagonal=1)
    put("final_norm", "ln_f", scale, shift)
    book["out_head.weight"] = state["lm_head.weight"].clone()
    torch.save({"model_state_dict": book, "optimizer_state_dict": {}} if is_joined else book, folder / "model.pth")
    return model


def write_meta(folder: Path) -> Callable[[Tensor], Tensor]:
    """Write a random Llama as Meta does, and return its logits computed with complex numbers, as Meta computes them."""
    torch.manual_seed(0)
    shapes = {"tok_embeddings.weight": (384, 32), "norm.weight": (32,), "output.weight": (384, 32), "rope.freqs": (4,)}
    for i in range(2):
        attention = {"wq": (32, 32), "wk": (16, 32), "wv": (16, 32), "wo": (32, 32)}
        shapes |= {f"layers.{i}.attention.{name}.weight": shape for name, shape in attention.items()}
        feed_forward = {"w1": (40, 32), "w2": (32, 40), "w3": (40, 32)}
        shapes |= {f"layers.{i}.feed_forward.{name}.weight": shape for name, shape in feed_forward.items()}
        shapes |= {f"layers.{i}.{name}.weight": (32,) for name in ("attention_norm", "ffn_norm")}
    state = {name: 0.3 * torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    torch.save(state, folder / "consolidated.00.pth")
    params = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": -1}
    (folder / "params.json").write_text(json.dumps(params))
    frequencies = 1 / 10000 ** (torch.arange(0, 8, 2, dtype=torch.float32) / 8)
    angles = torch.outer(torch.arange(30, dtype=torch.float32), frequencies)
    turns = torch.complex(angles.cos(), angles.sin()).to(torch.complex128)

    def turn(x: Tensor) -> Tensor:  # (B, H, T, D)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)

    def logits(idx: Tensor) -> Tensor:
        x = state["tok_embeddings.weight"][idx]
        for i in range(2):
            layer = {name.removeprefix(f"layers.{i}."): tensor for name, tensor in state.items()}
            h = F.rms_norm(x, (32,), layer["attention_norm.weight"], 1e-5)
            q, k, v = (
                F.linear(h, layer[f"attention.{name}.weight"]).unflatten(-1, (-1, 8)).transpose(1, 2)
                for name in ("wq", "wk", "wv")
            )
            k, v = turn(k).repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
            scores = (turn(q) @ k.transpose(2, 3) / 8**0.5).masked_fill(torch.ones(30, 30).triu(1).bool(), -torch.inf)
            y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            x = x + F.linear(y, layer["attention.wo.weight"])
            h = F.rms_norm(x, (32,), layer["ffn_norm.weight"], 1e-5)
            gated = F.silu(F.linear(h, layer["feed_forward.w1.weight"])) * F.linear(h, layer["feed_forward.w3.weight"])
            x = x + F.linear(gated, layer["feed_forward.w2.weight"])
        return F.linear(F.rms_norm(x, (32,), state["norm.weight"], 1e-5), state["output.weight"])

    return logits
