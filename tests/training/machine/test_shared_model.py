import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.gpt import GPT, Block
from tests.tiny import make_config, make_gpt
from training.config.run import RunConfig
from training.loss import Batch, next_token_loss
from training.machine.shared_model import SharedModel, recompute_blocks
from training.trainer import Trainer


def make_run(**changes: object) -> RunConfig:
    return RunConfig.model_validate({"out": Path("unused"), "device": "cpu", "steps": 3, "batch_size": 4, **changes})


def batches(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    idx = torch.randint(384, (4, 17), generator=torch.Generator().manual_seed(step))
    return {"idx": idx[:, :-1], "targets": idx[:, 1:]}


def gradients(model: GPT, call: Callable[[GPT], Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(3)
    model.train()
    torch.autograd.backward(call(model))
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_of(model: GPT) -> Tensor:
    return next_token_loss(model, batches(0)).loss


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_recomputed_blocks_give_the_same_gradients_with_dropout_and_keep_their_names(family: str) -> None:
    plain, thrifty = (make_gpt(make_config(family, dropout=0.3)) for _ in range(2))
    names = list(thrifty.state_dict())
    recompute_blocks(thrifty)
    assert list(thrifty.state_dict()) == names
    expected, found = gradients(plain, loss_of), gradients(thrifty, loss_of)
    assert all(torch.equal(grad, found[name]) for name, grad in expected.items())


def count_kept(model: GPT) -> int:
    """Count the numbers that autograd keeps for the backward pass."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model)
    return sum(sizes)


def test_recomputed_blocks_keep_less() -> None:
    plain, thrifty = (make_gpt(make_config("llama", n_layer=6)).train() for _ in range(2))
    recompute_blocks(thrifty)
    assert count_kept(thrifty) < count_kept(plain) / 3


def test_half_precision_computes_in_bfloat16_and_keeps_weights_in_float32() -> None:
    model = make_gpt(make_config("llama"))
    shared = SharedModel(model, make_run(precision="bf16"))
    seen: list[torch.dtype] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    loss = shared.train_call(lambda model: next_token_loss(model, batches(0)).loss)
    assert set(seen) == {torch.bfloat16}
    assert len(seen) >= len(handles) - 1  # all but the head, which the loss may apply itself
    assert loss.dtype == torch.float32
    torch.autograd.backward(loss)
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    exact = next_token_loss(make_gpt(make_config("llama")), batches(0)).loss
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
    assert loss.item() != exact.item()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_a_compiled_model_learns_the_same_under_the_same_names() -> None:
    plain, compiled = (make_gpt(make_config("llama", n_layer=1)) for _ in range(2))
    names = list(compiled.state_dict())
    fits = [Trainer(m, next_token_loss, batches, make_run(compile=m is compiled, steps=2)) for m in (plain, compiled)]
    assert fits[1].shared.calls._compiled_call_impl is not None
    for trainer in fits:
        trainer.fit()
    assert list(compiled.state_dict()) == names
    (_, expected), (_, found) = (trainer.log.series("train", "loss") for trainer in fits)
    assert found == pytest.approx(expected, rel=1e-4)


def test_averaged_weights_are_evaluated_and_handed_over() -> None:
    model = make_gpt(make_config("llama"))
    config = make_run(steps=12, eval_interval=6, ema=0.8, keep_best=False, optim={"lr": 1e-2})
    trainer = Trainer(model, next_token_loss, batches, config, valid=[batches(50)])
    last: dict[str, Tensor] = {}
    finish = trainer.finish

    def see() -> None:
        last.update({name: p.detach().clone() for name, p in model.named_parameters()})
        finish()

    trainer.finish = functools.partial(see)  # type: ignore[method-assign]
    trainer.fit()
    assert trainer.average is not None
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trainer.average.tensors()[name])
    assert any(not torch.equal(tensor, model.get_parameter(name)) for name, tensor in last.items())
    _, losses = trainer.log.series("valid", "loss")
    assert trainer.evaluate([batches(50)])["loss"] == pytest.approx(losses[-1])


def test_blocks_are_found_by_their_class() -> None:
    assert sum(isinstance(module, Block) for module in make_gpt(make_config("gpt2")).modules()) == 2
