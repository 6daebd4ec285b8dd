"""LoRA against PEFT in float64, through its own files: values, gradients, merged weights, for every kind of model."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from model.adapter import adapter_files, adapter_tensors, fill_adapter, load_adapter
from model.adapter_config import AdapterConfig
from model.adapter_directory import PREFIX, read_adapter
from model.checkpoint import public_views
from model.classifier import GPTClassifier
from model.gpt import GPT
from model.lora import LoRALinear, add_lora, has_lora, merge_lora, without_lora
from tests.tiny import KINDS, make_config, make_gpt
from tests.twins import pair, twin

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

BAR = 1e-12
"""Largest difference to PEFT."""

TARGETS = {
    "gpt2": [("all",), ("c_attn",), ("c_proj",), ("attn.c_proj", "mlp.c_fc"), ("transformer.h.1.mlp.c_proj",)],
    "llama": [
        *(("all",), ("q_proj", "v_proj"), ("k_proj",), ("v_proj", "up_proj"), ("gate_proj",), ("o_proj", "down_proj")),
        ("layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj"),
    ],
    "llama3": [("q_proj", "lm_head")],
    "qwen2": [("all",)],
    "qwen3": [("k_proj", "v_proj", "gate_proj")],
}
CASES = [(kind, targets) for kind, choices in TARGETS.items() for targets in choices]

IDX = torch.arange(3 * 40).view(3, 40) * 7 % 384


def shaken(model: GPT | GPTClassifier, seed: int = 3) -> None:
    """Move the updates of a model away from zero."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.add_(torch.randn(parameter.shape, generator=rng) * 0.1)


def adapted(kind: str, config: AdapterConfig) -> GPT:
    model = make_gpt(make_config(kind)).double()
    add_lora(model, config)
    shaken(model)
    return model


def write(folder: Path, model: GPT | GPTClassifier, config: AdapterConfig) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in adapter_files(model, config).items():
        (folder / name).write_bytes(content)
    return folder


def loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), IDX[:, 1:].flatten())


@pytest.mark.parametrize(("kind", "targets"), CASES)
def test_values_gradients_and_merged_weights_equal_those_of_peft(
    kind: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    config = AdapterConfig(rank=3, alpha=5, targets=targets)
    ours = adapted(kind, config)
    base = twin(make_gpt(make_config(kind)).double())
    theirs = PeftModel.from_pretrained(base, write(tmp_path, ours, config), is_trainable=True)

    logits, expected = ours.logits(ours(IDX)), theirs(IDX).logits
    assert (logits - expected).abs().max() < BAR
    loss(logits).backward()
    loss(expected).backward()
    gradients = {name: p.grad for name, p in adapter_tensors(ours, config)}
    wanted = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        assert (gradient - wanted[name]).abs().max() < BAR
        assert gradient.abs().max() > 1e3 * BAR
    assert [p.grad for p in ours.parameters() if not p.requires_grad].count(None) == len(dict(public_views_of(ours)))

    merged = theirs.merge_and_unload()
    merge_lora(ours)
    assert not has_lora(ours)
    assert all(p.requires_grad for p in ours.parameters())
    weights = dict(merged.named_parameters())
    for name, weight in public_views(ours):
        assert (weight - weights[name]).abs().max() < BAR, name
    assert (ours.logits(ours(IDX)) - logits).abs().max() < BAR


def public_views_of(model: GPT) -> dict[str, Tensor]:
    """The weights of a model that were there before the updates."""
    return {name: p for name, p in model.named_parameters() if "lora_" not in name}


PEFTS = {
    "gpt2-patterns": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"attn.c_proj": 5}}),
    "gpt2-all-linear": ("gpt2", {"target_modules": "all-linear", "alpha_pattern": {"h.1.mlp.c_fc": 7}}),
    "llama-stabilized": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "llama-one-block": ("llama", {"target_modules": ["k_proj", "up_proj"], "layers_to_transform": 1}),
    "llama-blocks": (
        "llama",
        {"target_modules": ["v_proj"], "layers_to_transform": [0], "layers_pattern": "layers", "lora_dropout": 0.1},
    ),
    "llama-expression": ("llama", {"target_modules": r".*\.1\..*(q|gate)_proj", "init_lora_weights": "gaussian"}),
    "llama-excluded": (
        "llama",
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"], "rank_pattern": {".*k_proj": 1, "q_proj": 4}},
    ),
    "qwen3-first-pattern": ("qwen3", {"target_modules": ["q_proj"], "rank_pattern": {"layers.0.*": 6, "q_proj": 2}}),
}


@pytest.mark.parametrize("name", PEFTS)
def test_an_adapter_that_peft_wrote_does_here_what_it_does_there(name: str, tmp_path: Path) -> None:
    kind, options = PEFTS[name]
    ours, base = pair(make_config(kind))
    theirs = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=4, **options)).eval()
    for parameter in (p for name, p in theirs.named_parameters() if "lora_" in name):
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    load_adapter(ours, read_adapter(tmp_path))
    ours.eval()
    with torch.no_grad():
        expected = theirs(IDX).logits
        assert (ours.logits(ours(IDX)) - expected).abs().max() < BAR
        with without_lora(ours):
            assert (ours.logits(ours(IDX)) - expected).abs().max() > 0.1
        merge_lora(ours)
        assert (ours.logits(ours(IDX)) - expected).abs().max() < BAR


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_exchange_adapters_with_peft_together_with_their_heads(kind: str, tmp_path: Path) -> None:
    config = AdapterConfig(rank=2, alpha=4)

    def classifier(seed: int) -> GPTClassifier:
        model = GPTClassifier(make_config(kind), 3).double().eval()
        model.gpt.load_state_dict(make_gpt(make_config(kind)).double().state_dict(), strict=False)
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(seed))
        return model

    idx, lengths = IDX + 1, torch.tensor([40, 40, 40])
    ours = classifier(1)
    add_lora(ours, config)
    shaken(ours)
    theirs = PeftModel.from_pretrained(twin(classifier(2)), write(tmp_path / "ours", ours, config))
    with torch.no_grad():
        assert (ours(idx, lengths) - theirs(idx).logits).abs().max() < BAR

        fresh = get_peft_model(twin(classifier(3)), LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
        for parameter in (p for name, p in fresh.named_parameters() if p.requires_grad):
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        fresh.eval().save_pretrained(tmp_path / "theirs")
        again = classifier(4)
        stored = read_adapter(tmp_path / "theirs")
        assert stored.num_labels == 3
        load_adapter(again, stored)
        assert (again(idx, lengths) - fresh(idx).logits).abs().max() < BAR
        merge_lora(again)
        assert (again(idx, lengths) - fresh(idx).logits).abs().max() < BAR


def test_dropout_draws_for_every_part_as_peft_does(tmp_path: Path) -> None:
    config = AdapterConfig(rank=3, alpha=5, dropout=0.4, targets=("q_proj", "v_proj", "down_proj"))
    ours = adapted("llama", config)
    base = twin(make_gpt(make_config("llama")).double())
    theirs = PeftModel.from_pretrained(base, write(tmp_path, ours, config), is_trainable=True)
    values = []
    for model, call in ((ours, lambda: ours.logits(ours(IDX))), (theirs, lambda: theirs(IDX).logits)):
        torch.manual_seed(5)
        model.train()
        values.append(call())
    assert (values[0] - values[1]).abs().max() < BAR
    assert (values[0] - ours.eval().logits(ours(IDX))).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_base_in_bfloat16_computes_as_under_peft(kind: str, tmp_path: Path) -> None:
    config = AdapterConfig(rank=3, alpha=5)
    ours = make_gpt(make_config(kind)).bfloat16()
    add_lora(ours, config)
    shaken(ours)
    base = twin(make_gpt(make_config(kind))).bfloat16()
    theirs = PeftModel.from_pretrained(base, write(tmp_path, ours, config))
    assert {p.dtype for name, p in ours.named_parameters() if "lora_" in name} == {torch.float32}
    with torch.no_grad():
        logits, expected = ours.logits(ours(IDX)), theirs(IDX).logits
    assert logits.dtype == expected.dtype == torch.bfloat16
    assert (logits.float() - expected.float()).abs().max() < 0.02 * expected.abs().max()

    full = make_gpt(make_config(kind)).bfloat16().float()
    add_lora(full, config)
    fill_adapter(full, read_adapter(tmp_path))
    merge_lora(ours)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    torch.testing.assert_close(ours.logits(ours(IDX)), full.logits(full(IDX)), atol=1e-4, rtol=1e-4)


def test_an_adapted_model_begins_as_it_was_and_can_be_so_again() -> None:
    model = make_gpt(make_config("llama"))
    before = model(IDX)
    add_lora(model, AdapterConfig(rank=2, alpha=4, targets=("k_proj", "up_proj")))
    assert torch.equal(model(IDX), before)
    shaken(model)
    after = model(IDX)
    assert not torch.equal(after, before)
    with without_lora(model):
        assert torch.equal(model(IDX), before)
    assert torch.equal(model(IDX), after)


def test_only_rows_of_the_targets_change() -> None:
    model = make_gpt(make_config("llama"))
    weight = model.h[0].attn.qkv.weight.detach().clone()
    add_lora(model, AdapterConfig(rank=2, alpha=4, targets=("k_proj",)))
    shaken(model)
    layer = model.h[0].attn.qkv
    assert isinstance(layer, LoRALinear)
    changed = (layer.merged_weight() != weight).any(1)
    assert changed.nonzero().flatten().tolist() == list(range(32, 48))


def test_only_updates_and_a_classifiers_head_train() -> None:
    model = GPTClassifier(make_config("llama"), 2)
    add_lora(model, AdapterConfig(rank=2, alpha=4))
    training = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name for name in training if "lora_" not in name} == {"score.weight"}
    assert len(training) == 1 + 2 * 2 * 7
    assert all(name.startswith(PREFIX) for name, _ in adapter_tensors(model, AdapterConfig(rank=2, alpha=4)))
