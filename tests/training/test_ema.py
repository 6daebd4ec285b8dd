import pytest
import torch

from tests.tiny import make_config, make_gpt
from training.ema import ExponentialAverage


def test_averages_equal_the_sum_written_out() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(8.0)
    average = ExponentialAverage(model, 0.2)
    expected = 8.0
    for step, weight in enumerate([4.0, -2.0, 1.0]):
        with torch.no_grad():
            model.weight.fill_(weight)
        average.update(step)
        decay = [0.1, 2 / 11, 0.2][step]  # (1 + n) / (10 + n), but at most 0.2
        expected = decay * expected + (1 - decay) * weight
    assert average.tensors()["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_weights_are_swapped_for_their_averages_and_come_back_bit_for_bit() -> None:
    model = make_gpt(make_config("llama"))
    average = ExponentialAverage(model, 0.99)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    average.update(5)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    averages = {name: tensor.clone() for name, tensor in average.tensors().items()}
    assert weights.keys() == averages.keys()
    with average.swapped_in():
        assert all(torch.equal(p, averages[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(torch.equal(tensor, averages[name]) for name, tensor in average.tensors().items())


def test_an_average_is_resumed_by_writing_into_its_tensors() -> None:
    model = make_gpt(make_config("gpt2"))
    first, second = ExponentialAverage(model, 0.9), ExponentialAverage(model, 0.9)
    with torch.no_grad():
        model.wte.weight.mul_(2)
    first.update(0)
    for name, tensor in second.tensors().items():
        tensor.copy_(first.tensors()[name])
    for average in (first, second):
        average.update(1)
    assert torch.equal(first.tensors()["wte.weight"], second.tensors()["wte.weight"])
    assert not torch.equal(first.tensors()["wte.weight"], model.wte.weight)
