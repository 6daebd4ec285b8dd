"""From a checkpoint on disk to an engine: sizes, limits and the weights' way in."""

import pytest
import torch

from model.checkpoint import load_gpt
from model.config import PRESETS
from model.directory import CheckpointError
from model.generate import generate
from model.sampling_params import SamplingParams
from service.engine.build import CACHE_SHARE, build_engine, default_cache_tokens, default_page_size, memory_bytes
from service.engine.request import Request
from tests.service.engine.scripted import run_to_end, tokens_of
from tests.tiny import make_config

LIMITS = {"max_num_seqs": 4, "max_num_batched_tokens": 64}


@pytest.mark.parametrize("name", ["tiny-base", "tiny-chat"])
def test_an_engine_built_from_a_checkpoint_generates_what_the_checkpoint_does(tiny_checkpoints, name):
    engine = build_engine(tiny_checkpoints / name, **LIMITS)
    params = SamplingParams(max_tokens=20, seed=7)
    engine.add(Request("a", [30, 31, 32], params))
    alone = generate(load_gpt(tiny_checkpoints / name), [30, 31, 32], params)
    assert tokens_of(run_to_end(engine), "a") == alone.output_ids


def test_by_default_every_sequence_can_reach_the_whole_context(tiny_checkpoints):
    engine = build_engine(tiny_checkpoints / "tiny-base", **LIMITS)
    assert engine.scheduler.pool.num_tokens == 4 * 128


def test_the_cache_takes_what_it_is_told(tiny_checkpoints):
    engine = build_engine(tiny_checkpoints / "tiny-base", **LIMITS, kv_cache_tokens=200, page_size=16)
    assert (engine.scheduler.pool.num_pages, engine.scheduler.pool.page_size) == (12, 16)


def test_a_cache_smaller_than_the_context_is_refused_before_serving(tiny_checkpoints):
    with pytest.raises(ValueError, match="kv_cache_tokens"):
        build_engine(tiny_checkpoints / "tiny-base", **LIMITS, kv_cache_tokens=100, page_size=16)


def test_a_classifier_is_not_a_generation_model(tiny_checkpoints):
    with pytest.raises(CheckpointError):
        build_engine(tiny_checkpoints / "tiny-spam", **LIMITS)


def test_the_default_cache_never_exceeds_its_share_of_memory_nor_falls_below_one_sequence():
    config = make_config("gpt2")
    bytes_per_page = int(CACHE_SHARE * memory_bytes("cpu")) // 10
    assert default_cache_tokens(config, 128, bytes_per_page, 64, "cpu") == 10 * 128
    assert default_cache_tokens(config, 128, memory_bytes("cpu"), 64, "cpu") == 128
    assert default_cache_tokens(config, 50, 1, 2, "cpu") == 2 * 150


def test_a_page_is_a_whole_sequence_on_a_cpu_unless_the_context_is_too_long_for_several():
    config = make_config("llama")
    assert default_page_size(config, 32, "cpu", torch.float32) == config.block_size
    endless = PRESETS["llama-3.2-1b"].model_copy(update={"block_size": 10**9})
    assert default_page_size(endless, 32, "cpu", torch.float32) == 256
    assert default_page_size(endless, 1, "cpu", torch.float32) == 256
    assert default_page_size(config, 32, "cuda", torch.float32) == 16
