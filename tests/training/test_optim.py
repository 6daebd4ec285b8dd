import copy

import pytest
import torch

from model.classifier import GPTClassifier
from tests.tiny import make_config, make_gpt
from training.config import OptimConfig
from training.optim import Muon, build_optimizers, lr_factor, orthogonalize, set_lr


def test_rate_rises_linearly_and_falls_to_its_last_value() -> None:
    config = OptimConfig(warmup=0.2, final_lr=0.1, schedule="cosine")
    factors = [lr_factor(step, 21, config) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx((1 + 0.1) / 2)  # half-way down a cosine
    assert factors[20] == pytest.approx(0.1)


def test_linear_schedule_falls_by_equal_steps() -> None:
    config = OptimConfig(warmup=0, final_lr=0, schedule="linear")
    assert [lr_factor(step, 5, config) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_constant_schedule_stays_at_the_peak() -> None:
    config = OptimConfig(warmup=0, schedule="constant")
    assert {lr_factor(step, 9, config) for step in range(9)} == {1.0}


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_orthogonalizing_keeps_the_singular_directions() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(1, 12, 20)
    u, _, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    turned = u.T @ orthogonalize(matrix)[0] @ vh.T
    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-4)


def test_muon_moves_as_the_framework_s_own_does() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(6, 9), (9, 6), (6, 9)]]
    theirs = copy.deepcopy(ours)
    settings = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1}
    optimizers = [Muon(ours, **settings), torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=5e-3)  # theirs works in bfloat16


def test_muon_gets_the_blocks_matrices_and_adamw_the_rest() -> None:
    model = GPTClassifier(make_config("gpt2"), 2)
    adamw, muon = build_optimizers(model, OptimConfig(name="muon"))
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert hidden == {name for name in names.values() if ".h." in name and name.endswith("weight") and "ln" not in name}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in adamw.param_groups)
    assert decayed == {"gpt.wte.weight", "gpt.wpe.weight", "score.weight"}
    assert hidden | decayed | spared == set(names.values())
    assert adamw.param_groups[1]["weight_decay"] == 0


def test_frozen_weights_belong_to_no_optimizer() -> None:
    model = make_gpt(make_config("llama"))
    model.requires_grad_(False)
    model.ln_f.weight.requires_grad_(True)
    (adamw,) = build_optimizers(model, OptimConfig(name="muon"))
    assert [p for group in adamw.param_groups for p in group["params"]] == [model.ln_f.weight]


def test_rate_is_set_as_a_share_of_each_group_s_peak() -> None:
    optimizers = build_optimizers(make_gpt(make_config("llama")), OptimConfig(lr=0.02))
    for factor in (0.5, 0.25):
        set_lr(optimizers, factor)
        assert {group["lr"] for o in optimizers for group in o.param_groups} == {0.02 * factor}
