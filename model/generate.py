"""Generate one sequence the obvious way: no cache, no batch, the whole text anew for each token.

Slow on purpose. It is the oracle that the serving engine must match token by token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from model.gpt import GPT
from model.sampling import SampleRow, sample
from model.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Generated:
    """What came out: the ids, the end token included, and why it ended."""

    output_ids: list[int]
    finish_reason: Literal["stop", "length"]
    stop_token_id: int | None = None
    """The entry of `stop_token_ids` that ended the sequence; None when an end token of the model did."""


def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    *,
    choice: int = 0,
    eos_token_ids: Sequence[int] = (),
) -> Generated:
    """Continue a prompt until an end token, `max_tokens` or the end of the context.

    Raises:
        ValueError: the prompt is empty or does not fit the context.
    """
    output_ids = list(generate_tokens(model, prompt_ids, params, choice=choice, eos_token_ids=eos_token_ids))
    if output_ids and output_ids[-1] in end_token_ids(params, eos_token_ids):
        last = output_ids[-1]
        return Generated(output_ids, "stop", last if last in params.stop_token_ids else None)
    return Generated(output_ids, "length")


@torch.inference_mode()
def generate_tokens(
    model: GPT,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    *,
    choice: int = 0,
    eos_token_ids: Sequence[int] = (),
) -> Iterator[int]:
    """Yield the tokens of `generate` one by one, as they are drawn."""
    if not prompt_ids:
        raise ValueError("the prompt is empty: give at least one token, for example the end-of-text token")
    if len(prompt_ids) > model.config.block_size:
        raise ValueError(f"the prompt's {len(prompt_ids)} tokens exceed the context of {model.config.block_size}")
    end_ids = end_token_ids(params, eos_token_ids)
    device = next(model.parameters()).device
    output_ids: list[int] = []
    while len(output_ids) < params.max_tokens and len(prompt_ids) + len(output_ids) < model.config.block_size:
        idx = torch.tensor([[*prompt_ids, *output_ids]], device=device)  # (1, T)
        logits = model.logits(model(idx)[:, -1]).float()  # (1, V)
        token_id = int(sample(logits, [SampleRow(params, choice, prompt_ids, output_ids, end_ids)]))
        output_ids.append(token_id)
        yield token_id
        if token_id in end_ids:
            return


def end_token_ids(params: SamplingParams, eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    """All ids that end a sequence under these settings."""
    return (*(() if params.ignore_eos else eos_token_ids), *params.stop_token_ids)
