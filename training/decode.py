"""Greedy answers for many prompts at once, through the paged cache: what evaluation needs, far from a server."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from model.cached_attention import Row
from model.gpt import GPT
from model.kv_cache import PagedKVCache
from model.tiled_attention import MAX_TILE


@torch.inference_mode()
def greedy_answers(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    end_ids: Collection[int],
    max_tokens: int,
    batch_size: int = 32,
    has_stopped: Callable[[list[int]], bool] = lambda answer: False,
) -> list[list[int]]:
    """Continue each prompt with its most likely tokens until an end token, `max_tokens` or the end of the context.

    The end token is part of an answer, as in `model.generate`. A prompt that fills the context gets no answer.

    Args:
        has_stopped: says of the ids of an answer so far whether they end it.
    """
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        items = order[start : start + batch_size]
        found = _decode_batch(model, [prompts[i] for i in items], end_ids, max_tokens, has_stopped)
        for item, answer in zip(items, found, strict=True):
            answers[item] = answer
    return answers


def _decode_batch(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    end_ids: Collection[int],
    max_tokens: int,
    has_stopped: Callable[[list[int]], bool],
) -> list[list[int]]:
    """Give each prompt one page that holds all it may become, and step those that have not ended."""
    block_size = model.config.block_size
    longest = min(block_size, max(map(len, prompts)) + max_tokens)
    page_size = -(-longest // MAX_TILE) * MAX_TILE
    weight = model.wte.weight
    cache = PagedKVCache(
        model.config, num_pages=len(prompts), page_size=page_size, device=weight.device, dtype=weight.dtype
    )
    answers: list[list[int]] = [[] for _ in prompts]
    limits = [min(max_tokens, block_size - len(prompt)) for prompt in prompts]
    running = [row for row, limit in enumerate(limits) if limit > 0]
    fresh = {row: list(prompts[row]) for row in running}  # tokens not yet in the cache
    while running:
        starts = {row: len(prompts[row]) + len(answers[row]) - len(fresh[row]) for row in running}
        plan = cache.plan([Row([row], starts[row], len(fresh[row])) for row in running])
        idx = torch.tensor([[id_ for row in running for id_ in fresh[row]]], device=weight.device)  # (1, N)
        places = [starts[row] + i for row in running for i in range(len(fresh[row]))]
        hidden = model(idx, torch.tensor([places], device=weight.device), plan)[0]  # (N, C)
        ends = torch.tensor([len(fresh[row]) for row in running]).cumsum(0) - 1
        best: Tensor = model.logits(hidden[ends]).argmax(-1)
        for row, token_id in zip(running, best.tolist(), strict=True):
            answers[row].append(token_id)
            fresh[row] = [token_id]
        running = [row for row in running if answers[row][-1] not in end_ids and len(answers[row]) < limits[row]]
        running = [row for row in running if not has_stopped(answers[row])]
    return answers
