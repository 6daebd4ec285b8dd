"""From a checkpoint on disk to an engine: sizes, limits and the weights' way in."""

import pytest

from model.checkpoint import load_gpt
from model.directory import CheckpointError
from model.generate import generate
from model.sampling_params import SamplingParams
from service.engine.build import build_engine
from service.engine.request import Request
from tests.service.engine.scripted import run_to_end, tokens_of

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
