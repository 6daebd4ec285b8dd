"""Adapters beside a base: each token as if its adapter were merged, whoever its neighbours are."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from model.adapter import adapter_files, load_adapter
from model.adapter_config import AdapterConfig
from model.adapter_directory import read_adapter
from model.adapter_rows import AdapterRows, read_updates
from model.classifier import GPTClassifier
from model.cpu_linear import pack_linears
from model.directory import CheckpointError
from model.gpt import GPT
from model.lora import add_lora, merge_lora
from tests.tiny import make_config, make_gpt

CONFIGS = {
    "all": AdapterConfig(rank=4, alpha=16),
    "q_and_v": AdapterConfig(rank=2, alpha=3, targets=("q_proj", "v_proj"), is_rank_stabilized=True),
    "gate_and_head": AdapterConfig(rank=3, alpha=6, targets=("gate_proj", "lm_head"), rank_pattern={"lm_head": 5}),
    "one_block": AdapterConfig(rank=1, alpha=4, targets=("c_attn", "mlp.c_proj"), layers=(1,)),
}


def make_adapter(folder: Path, base: GPT | GPTClassifier, config: AdapterConfig, seed: int = 1) -> Path:
    """Write an adapter whose updates are large enough to change every answer."""
    model = copy.deepcopy(base)
    torch.manual_seed(seed)
    add_lora(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True)
    for name, content in adapter_files(model, config).items():
        (folder / name).write_bytes(content)
    return folder


def merged(base: GPT, folder: Path) -> GPT:
    model = copy.deepcopy(base)
    load_adapter(model, read_adapter(folder))
    merge_lora(model)
    return model


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "first", "second"), [("gpt2", "all", "one_block"), ("llama3", "q_and_v", "gate_and_head")]
)
@torch.inference_mode()
def test_each_row_is_computed_with_its_own_adapter(
    tmp_path: Path, kind: str, first: str, second: str, is_packed: bool
) -> None:
    base = make_gpt(make_config(kind))
    folders = {name: make_adapter(tmp_path / name, base, CONFIGS[name]) for name in (first, second)}
    models = {None: base, **{name: merged(base, folder) for name, folder in folders.items()}}
    idx = torch.randint(384, (1, 12), generator=torch.Generator().manual_seed(0))
    expected = {name: model.logits(model(idx))[0] for name, model in models.items()}
    if is_packed:
        pack_linears(base)
    rows = AdapterRows(base)
    for name, folder in folders.items():
        rows.add(name, read_updates(read_adapter(folder), base.config, "cpu"))

    # Rows of one sequence cannot be told apart by causal attention, so each adapter takes a sequence of its own.
    layout = [first, None, second, first]
    hidden = []
    with rows.applied([(name, 12) for name in layout]):
        hidden = base(idx.repeat(1, 4), torch.arange(12).repeat(4)[None], plan=Apart(4))
        logits = base.logits(hidden)[0]
    for name, found in zip(layout, logits.split(12), strict=True):
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected[first], expected[second], atol=0.1)

    rows.remove(first)
    rows.remove(second)
    torch.testing.assert_close(base.logits(base(idx))[0], expected[None], rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in base.modules())


class Apart:
    """An attention plan of equally long sequences, each by itself."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def attend(self, layer, q, k, v, dropout=0.0):
        parts = (x.chunk(self.num_rows, 2) for x in (q, k, v))
        attend = nn.functional.scaled_dot_product_attention
        return torch.cat([attend(*row, is_causal=True, enable_gqa=True) for row in zip(*parts, strict=True)], 2)


def test_the_head_of_an_adapted_classifier_comes_with_it(tmp_path: Path) -> None:
    config = make_config("gpt2")
    classifier = GPTClassifier(config, 3)
    folder = make_adapter(tmp_path / "labels", classifier, CONFIGS["all"])
    loaded = read_updates(read_adapter(folder), config, "cpu")
    assert loaded.head is not None
    assert loaded.head.shape == (3, config.n_embd)


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "small", make_gpt(make_config("gpt2")), CONFIGS["all"])
    with pytest.raises(CheckpointError, match="made for another base"):
        read_updates(read_adapter(folder), make_config("gpt2", n_embd=64), "cpu")
