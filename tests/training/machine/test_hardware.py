import mmap

import pytest
import torch

from model.config import PRESETS, GPTConfig
from model.gpt import GPT
from tests.tiny import KINDS, make_config
from training.machine.hardware import Meter, flops_per_token, measured_flops, memory_in_use, peak_flops, peak_of


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_six_for_each_weight_that_multiplies_and_attention(kind: str) -> None:
    config = make_config(kind)
    model = GPT(config)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    attention = 12 * config.n_layer * config.n_head * config.head_dim * config.block_size
    assert flops_per_token(config) == 6 * weights + attention


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_operations_equal_those_that_the_framework_counts(kind: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = make_config(kind, n_kv_head=4)
    model = GPT(config)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits = model.logits(model(torch.zeros(2, config.block_size, dtype=torch.int64)))
        torch.autograd.backward(logits.sum())
    assert flops_per_token(config) * 2 * config.block_size == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_gpt2_small_needs_855_million_operations_a_token() -> None:
    # 123.5M weights that multiply (124.4M less the positions, biases and norms), and 12 * 12 * 768 * 1024.
    assert flops_per_token(PRESETS["gpt2-small"]) == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024
    assert flops_per_token(GPTConfig()) == pytest.approx(855e6, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "half", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", True, 989.4),
        ("NVIDIA H100 PCIe", True, 756.5),
        ("NVIDIA H200", False, 494.7),
        ("NVIDIA A100-SXM4-40GB", True, 312.0),
        ("NVIDIA A10G", True, 70.0),
        ("NVIDIA A10", True, 125.0),
        ("NVIDIA L40S", True, 362.05),
        ("NVIDIA L4", True, 121.0),
        ("Tesla T4", False, 8.1),
        ("Tesla V100-SXM2-16GB", True, 125.0),
        ("NVIDIA GeForce RTX 4090", True, 165.2),
        ("NVIDIA B200", True, 2250.0),
    ],
)
def test_known_accelerators_have_their_dense_peak(name: str, half: bool, tflops: float) -> None:
    assert peak_of(name, half=half) == tflops * 1e12


@pytest.mark.parametrize(
    "name", ["Abacus 9000", "NVIDIA T400", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU"]
)
def test_unknown_accelerators_have_none(name: str) -> None:
    assert peak_of(name, half=True) is None


def test_other_devices_are_measured() -> None:
    measured = measured_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < measured < 1e15
    assert 0.1 < peak_flops(torch.device("cpu"), half=False) / measured < 10


def test_memory_of_the_process_grows_with_what_it_holds() -> None:
    before = memory_in_use(torch.device("cpu"))
    held = mmap.mmap(-1, 64 * 2**20)  # of the system, and not what the process has had and given back
    torch.frombuffer(held, dtype=torch.uint8).fill_(1)
    assert memory_in_use(torch.device("cpu")) - before > 0.9 * len(held)


def test_utilization_is_the_share_of_the_peak_of_all_devices() -> None:
    cpu = torch.device("cpu")
    assert Meter(flops_per_token=10, peak_flops=400.0, device=cpu).utilization(8.0) == 0.2
    one, two = (Meter.of(make_config("llama"), cpu, half=False, num_devices=n) for n in (1, 2))
    assert one.flops_per_token == flops_per_token(make_config("llama"))
    assert two.peak_flops > 1.2 * one.peak_flops
    assert one.memory() > 0
