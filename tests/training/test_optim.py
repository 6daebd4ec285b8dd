import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.classifier import GPTClassifier
from tests.forked import run_ranks
from tests.tiny import make_config, make_gpt
from tests.training.muon_program import main
from training import optim
from training.config.run import OptimConfig
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


def test_wsd_holds_the_peak_and_falls_by_equal_steps_at_the_end() -> None:
    config = OptimConfig(warmup=0.1, decay=0.3, final_lr=0.1, schedule="wsd")
    factors = [lr_factor(step, 20, config) for step in range(20)]
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2:15] == [1.0] * 13
    assert factors[14:] == pytest.approx([1.0, 0.82, 0.64, 0.46, 0.28, 0.1])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_every_schedule_begins_its_warm_up_above_zero_and_ends_at_its_last_value(schedule: str, steps: int) -> None:
    config = OptimConfig.model_validate({"schedule": schedule, "warmup": 0.1, "final_lr": 0.2, "decay": 0.5})
    factors = [lr_factor(step, steps, config) for step in range(steps)]
    assert 0 < factors[0] <= 1
    assert max(factors) == 1.0
    if steps == 50:
        assert factors[0] == pytest.approx(1 / 6)
        assert factors[5:] == sorted(factors[5:], reverse=True)
        assert factors[-1] == pytest.approx(1.0 if schedule == "constant" else 0.2)


def test_wsd_may_fall_from_the_end_of_the_warm_up_on() -> None:
    config = OptimConfig(warmup=0.5, decay=0.5, final_lr=0, schedule="wsd")
    linear = config.model_copy(update={"schedule": "linear"})
    assert [lr_factor(s, 20, config) for s in range(20)] == [lr_factor(s, 20, linear) for s in range(20)]


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


def test_matrices_on_top_of_each_other_move_as_if_they_lay_apart() -> None:
    torch.manual_seed(0)
    apart = [torch.nn.Parameter(torch.randn(rows, 8)) for rows in (8, 4, 4)]
    merged = torch.nn.Parameter(torch.cat(apart).detach())
    settings = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1}
    together = Muon([{"params": [merged], "parts": (8, 4, 4)}], **settings)
    alone = Muon(apart, **settings)
    for _ in range(3):
        for a in apart:
            a.grad = torch.randn_like(a)
        merged.grad = torch.cat([a.grad for a in apart])
        together.step()
        alone.step()
    torch.testing.assert_close(merged, torch.cat(apart))
    whole = Muon([merged], **settings)
    before = merged.detach().clone()
    whole.step()
    together.step()
    assert not torch.allclose(merged, before, atol=1e-3)


def test_muon_knows_what_lies_in_the_merged_matrices() -> None:
    model = make_gpt(make_config("llama"))
    _, muon = build_optimizers(model, OptimConfig(name="muon"))
    parts = {tuple(p.shape): group["parts"] for group in muon.param_groups for p in group["params"]}
    assert parts[model.h[0].attn.qkv.weight.shape] == (32, 16, 16)
    assert parts[model.h[0].mlp.gate_up.weight.shape] == (96, 96)
    assert parts[model.h[0].attn.proj.weight.shape] is None


def test_muon_in_bfloat16_moves_almost_alike() -> None:
    torch.manual_seed(0)
    first = torch.nn.Parameter(torch.randn(16, 24))
    second = copy.deepcopy(first)
    start = first.detach().clone()
    for param, half in ((first, False), (second, True)):
        param.grad = torch.ones(16, 24).cumsum(1).sin() + start
        Muon([param], lr=0.1, momentum=0.95, weight_decay=0.0, half=half).step()
    assert second.dtype == torch.float32
    assert 0 < (first - second).norm() < 0.05 * (first - start).norm()


def test_few_weights_at_a_time_move_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    for limit in (optim.BATCH, 500):
        monkeypatch.setattr(optim, "BATCH", limit)
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(12, 16)) for _ in range(7)]
        for p in params:
            p.grad = torch.randn_like(p)
        Muon(params, lr=0.1, momentum=0.95, weight_decay=0.1).step()
        moved.append(torch.stack(params))
    torch.testing.assert_close(moved[0], moved[1])


@pytest.mark.slow
def test_muon_moves_shared_out_matrices_as_whole_ones(tmp_path: Path) -> None:
    found = {}
    for name, size in (("whole", 1), ("shared", 2)):
        out = tmp_path / f"{name}.safetensors"
        assert run_ranks(main, out, size=size, logs=tmp_path) == [0] * size, (tmp_path / "rank-0.log").read_text()
        found[name] = load_file(out)
    assert found["whole"].keys() == found["shared"].keys()
    assert "optim.h.0.attn.qkv.weight" in found["whole"]
    for name, tensor in found["whole"].items():
        torch.testing.assert_close(found["shared"][name], tensor, rtol=1e-6, atol=1e-6, msg=name)


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
