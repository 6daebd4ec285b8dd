"""The plain generator: when it ends, what it counts."""

import pytest

from model.generate import generate
from model.sampling_params import SamplingParams
from tests.tiny import make_config, make_gpt

MODEL = make_gpt(make_config("gpt2"))
GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def test_seeded_answers_repeat_and_choices_differ() -> None:
    params = SamplingParams(max_tokens=20, seed=11)
    first = generate(MODEL, [1, 2], params)
    assert generate(MODEL, [1, 2], params) == first
    assert generate(MODEL, [1, 2], params, choice=1) != first


def test_end_token_of_the_model_ends_and_is_counted() -> None:
    free = generate(MODEL, [1, 2], GREEDY).output_ids
    ended = generate(MODEL, [1, 2], GREEDY, eos_token_ids=[free[4]])
    assert ended.output_ids == free[: free.index(free[4]) + 1]
    assert (ended.finish_reason, ended.stop_token_id) == ("stop", None)


def test_stop_token_of_the_request_is_named() -> None:
    free = generate(MODEL, [1, 2], GREEDY).output_ids
    params = SamplingParams(temperature=0.0, max_tokens=20, stop_token_ids=(free[0],))
    ended = generate(MODEL, [1, 2], params)
    assert (ended.output_ids, ended.finish_reason, ended.stop_token_id) == (free[:1], "stop", free[0])


def test_ignored_end_token_does_not_end() -> None:
    free = generate(MODEL, [1, 2], GREEDY).output_ids
    params = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    assert generate(MODEL, [1, 2], params, eos_token_ids=[free[0]]).output_ids == free


def test_context_end_ends_with_length() -> None:
    ended = generate(MODEL, [1] * 120, GREEDY)
    assert (len(ended.output_ids), ended.finish_reason) == (8, "length")


def test_empty_and_overlong_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(MODEL, [], GREEDY)
    with pytest.raises(ValueError, match="129 tokens exceed the context of 128"):
        generate(MODEL, [1] * 129, GREEDY)
