import logging
import random

import numpy as np
import pytest
import torch

from model.generate import generate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.run.samples import Samples, continued, until
from training.run.tracking import MetricsLog


def test_samples_are_shown_and_logged_at_the_newest_step(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "training")
    log = MetricsLog()
    log.write("valid", 7, loss=1.0)
    Samples(tokenizer, ("", "The quick"), 5, log, seed=1)(make_gpt(make_config("llama")))
    first, second = log.records[1:]
    assert [first["prompt"], second["prompt"]] == ["", "The quick"]
    assert first["step"] == second["step"] == 7
    assert f"The quick|{second['text']}".splitlines()[0] in caplog.text


def test_samples_leave_every_random_generator_alone(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama", dropout=0.5))
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    logs = [MetricsLog(), MetricsLog()]
    for log in logs:
        Samples(tokenizer, ("The",), 20, log, seed=1)(model)
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert logs[0].records == logs[1].records


def test_a_sample_is_what_the_plain_generator_draws() -> None:
    model = make_gpt(make_config("gpt2"))
    params = SamplingParams(max_tokens=12, temperature=0.8, top_k=50, seed=3)
    assert continued(model, [5, 6, 7], params) == generate(model, [5, 6, 7], params).output_ids


@pytest.mark.parametrize("length", [15, 16, 40])
def test_long_prompts_are_cut_to_the_context(length: int) -> None:
    model = make_gpt(make_config("gpt2", block_size=16))
    assert len(continued(model, list(range(length)), SamplingParams(max_tokens=9))) == 1


def test_a_sample_ends_before_the_end_token() -> None:
    assert until([0], [4, 5, 0, 6, 0]) == [4, 5]
    assert until([0], [4, 5]) == [4, 5]
