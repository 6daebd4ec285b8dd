"""What a machine has room for is decided before weights are read."""

import platform
import subprocess
import sys

import pytest
import torch

from model.cached_attention import PAGED_MULTIPLE
from model.config import PRESETS
from model.gpt import GPT
from service.engine import memory
from service.engine.memory import (
    CACHE_SHARE,
    check_device,
    check_room,
    default_cache_tokens,
    default_page_size,
    free_bytes,
    memory_bytes,
    weight_bytes,
)
from tests.tiny import KINDS, make_config


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_counted_without_a_model(kind):
    config = make_config(kind)
    assert weight_bytes(config, torch.float32) == 4 * GPT(config).num_params()


def test_a_model_larger_than_what_is_free_is_refused_with_both_figures(monkeypatch):
    config = PRESETS["gpt2-small"]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 400_000_000)
    with pytest.raises(ValueError, match=r"need 0.5 GB and 0.4 GB of memory are free on cpu"):
        check_room(config, "cpu", torch.float32)
    check_room(config, "cpu", torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(ValueError, match=r"--device cuda:1: there is no such device here \(0 GPUs\)"):
        check_device("cuda:1", torch.float32)
    check_device("cpu", torch.bfloat16)


def test_free_memory_is_part_of_all_memory():
    assert 0 < free_bytes("cpu") <= memory_bytes("cpu")


def test_several_engines_share_what_one_could_have():
    config = make_config("gpt2")
    bytes_per_page = int(CACHE_SHARE * memory_bytes("cpu")) // 12
    alone = default_cache_tokens(config, 128, bytes_per_page, 64, "cpu")
    shared = default_cache_tokens(config, 128, bytes_per_page, 64, "cpu", num_engines=4)
    assert (alone, shared) == (12 * 128, 3 * 128)


def test_the_default_cache_never_exceeds_its_share_of_memory_nor_falls_below_one_sequence():
    config = make_config("gpt2")
    bytes_per_page = int(CACHE_SHARE * memory_bytes("cpu")) // 10
    assert default_cache_tokens(config, 128, bytes_per_page, 64, "cpu") == 10 * 128
    assert default_cache_tokens(config, 128, memory_bytes("cpu"), 64, "cpu") == 128
    assert default_cache_tokens(config, 50, 1, 2, "cpu") == 2 * 150


def test_pages_are_small_but_for_the_kernel_that_wants_large_ones():
    config = make_config("llama")
    assert default_page_size(config, "cpu", torch.bfloat16) == 16
    assert default_page_size(config, "cuda", torch.float32) == 16
    assert default_page_size(config, "cuda", torch.bfloat16) == PAGED_MULTIPLE
    tiny = config.model_copy(update={"block_size": 12})
    assert default_page_size(tiny, "cpu", torch.float32) == 12


PAGE_FAULTS = """
import resource, torch
from service.engine.memory import keep_freed_memory
def step():
    tensors = [torch.ones(2 * 2**20) for _ in range(12)]
def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
keep_freed_memory()
for _ in range(20):
    step()
before = count()
for _ in range(10):
    step()
print(count() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    for _ in range(4):  # without the setting every second process has 200,000 faults: it depends on what lies on top
        result = subprocess.run([sys.executable, "-c", PAGE_FAULTS], check=True, capture_output=True)
        assert int(result.stdout) < 100
