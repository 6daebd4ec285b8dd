import pytest
import torch

from model.generate import generate
from model.sampling_params import SamplingParams
from tests.tiny import make_config, make_gpt
from training.decode import greedy_answers

PROMPTS = [[5], [9, 8, 7, 6, 5, 4], [1, 2, 3], list(range(40, 60)), [350]]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batched_answers_equal_those_of_the_plain_loop(family: str) -> None:
    model = make_gpt(make_config(family))
    params = SamplingParams(max_tokens=12, temperature=0)
    alone = [generate(model, prompt, params).output_ids for prompt in PROMPTS]
    end_id = alone[1][4]  # so that rows end at different times
    expected = [generate(model, prompt, params, eos_token_ids=[end_id]).output_ids for prompt in PROMPTS]
    assert len({len(ids) for ids in expected}) > 1
    assert greedy_answers(model, PROMPTS, end_ids=[end_id], max_tokens=12, batch_size=3) == expected


def test_answers_end_with_the_context() -> None:
    model = make_gpt(make_config("llama", block_size=24))
    answers = greedy_answers(model, [list(range(20)), list(range(24)), [7]], end_ids=[], max_tokens=99)
    assert [len(ids) for ids in answers] == [4, 0, 23]


def test_no_gradient_is_kept() -> None:
    model = make_gpt(make_config("llama"))
    greedy_answers(model, [[1, 2]], end_ids=[], max_tokens=2)
    assert not torch.is_inference(model.wte.weight)
    assert model.wte.weight.grad is None
