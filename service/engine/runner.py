"""One step on the device: rows to tensors, one forward pass, new tokens and their log-probabilities.

The only file of the engine that knows tensors. It keeps no memory of requests between steps but the cache itself.
"""

import logging
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from model.adapter_rows import AdapterRows
from model.cached_attention import Row
from model.gpt import GPT
from model.kv_cache import PagedKVCache
from model.sampling import SampleRow, sample, top_logprobs
from service.engine.compiled import CompiledDecode
from service.engine.cuda_graphs import DecodeGraphs, can_capture
from service.engine.engine import RowResult
from service.engine.request import Logprob
from service.engine.scheduler import StepRow

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 64
"""Prompt positions whose logits exist at one time: with GPT-2's vocabulary, 13 MB."""


class GPTRunner:
    """A model and its cache, both on one device and in one dtype."""

    def __init__(self, model: GPT, *, num_pages: int, page_size: int) -> None:
        self.model = model.eval().requires_grad_(False)
        weight = model.wte.weight
        self.device = weight.device
        self.adapters = AdapterRows(model)
        """Whose updates rows may ask for by name."""
        self.heads: dict[str, Tensor] = {}
        """Classification heads (num_labels, C) that pooled rows may ask for by name."""
        self.cache = PagedKVCache(
            model.config, num_pages=num_pages, page_size=page_size, device=weight.device, dtype=weight.dtype
        )
        self.prepared: DecodeGraphs | CompiledDecode | None = None
        """Decode steps of the base, captured or compiled."""

    @torch.inference_mode()
    def capture_graphs(self, max_num_seqs: int) -> None:
        """Capture decode steps of up to so many rows, where attention allows it; before the first step."""
        if can_capture(self.cache):
            self.prepared = DecodeGraphs(self.model, self.cache, max_num_seqs=max_num_seqs)

    @torch.inference_mode()
    def run(self, rows: Sequence[StepRow]) -> list[RowResult]:
        """Compute all new tokens of the rows, and sample where a row reaches its newest token."""
        hidden = self._forward(rows)  # (N, C)
        ends = list(accumulate(row.length for row in rows))
        results = [RowResult() for _ in rows]
        is_finite = hidden.sum(-1, dtype=torch.float32).isfinite()  # (N,)
        hidden.nan_to_num_(0, 0, 0)  # a NaN would be an id beyond the vocabulary
        for row, end, result in zip(rows, ends, results, strict=True):
            if row.request.params.prompt_logprobs is not None:
                result.prompt_logprobs = self._score_prompt(row, hidden[end - row.length : end])
            if row.request.pooling is not None:
                result.pooled = self._pool(row, hidden[end - row.length : end])
        block_size = self.model.config.block_size
        sampled = [i for i, row in enumerate(rows) if row.is_complete and row.request.wants_token(block_size)]
        if sampled:
            last = hidden[self._tensor([ends[i] - 1 for i in sampled])]  # (B, C)
            self._sample(last, [rows[i] for i in sampled], [results[i] for i in sampled])
        if not is_finite.all():  # asked last: on a GPU it waits for the step
            for row, end, result in zip(rows, ends, results, strict=True):
                result.is_finite = bool(is_finite[end - row.length : end].all())
            self._clear([row for row, result in zip(rows, results, strict=True) if not result.is_finite])
        return results

    @torch.inference_mode()
    def compile_steps(self) -> None:
        """Compile decode steps, on a CPU; before the first step.

        Raises:
            ValueError: PyTorch or the C++ compiler failed.
        """
        self.prepared = CompiledDecode(self.model, self.cache)

    def _forward(self, rows: Sequence[StepRow]) -> Tensor:
        idx = [token for row in rows for token in row.request.token_ids(row.start, row.start + row.length)]
        places = [Row(row.pages, row.start, row.length) for row in rows]
        has_adapter = any(row.request.adapter is not None for row in rows)
        if self.prepared is not None and not has_adapter and self.prepared.covers(places):
            return self.prepared.run(idx, places)
        positions = [position for row in rows for position in range(row.start, row.start + row.length)]
        plan = self.cache.plan(places)
        with self.adapters.applied((row.request.adapter, row.length) for row in rows):
            hidden: Tensor = self.model(self._tensor(idx)[None], self._tensor(positions)[None], plan=plan)  # (1, N, C)
        return hidden[0]

    def _clear(self, rows: Sequence[StepRow]) -> None:
        """Wipe out what rows that are not finite have written: no weight times NaN would be NaN for the next owner."""
        for row in rows:
            name = "the model" if row.request.adapter is None else f"adapter {row.request.adapter}"
            logger.error("%s makes infinities or NaN of a sequence of %d tokens", name, row.start + row.length)
        self.cache.clear([Row(row.pages, row.start, row.length) for row in rows])

    def _sample(self, last: Tensor, rows: Sequence[StepRow], results: Sequence[RowResult]) -> None:
        """Fill in the next token of each row from its last hidden state (B, C)."""
        requests = [row.request for row in rows]
        logits = self._logits(last, [(request.adapter, 1) for request in requests])  # (B, V)
        choices = sample(
            logits,
            [SampleRow(r.params, r.choice, r.prompt_ids, r.output_ids, r.ending_ids, r.constraint) for r in requests],
        )
        for result, token_id in zip(results, choices.tolist(), strict=True):
            result.token_id = token_id
        wanting = [i for i, request in enumerate(requests) if request.params.logprobs is not None]
        if wanting:
            index = self._tensor(wanting)
            tops = [requests[i].params.logprobs or 0 for i in wanting]
            for i, logprob in zip(wanting, read_logprobs(logits[index], choices[index], tops), strict=True):
                results[i].logprob = logprob

    def _score_prompt(self, row: StepRow, hidden: Tensor) -> list[Logprob]:
        """Score the prompt tokens that this row's hidden states (T, C) predict and that have no score yet."""
        request = row.request
        first = max(row.start, len(request.prompt_logprobs) - 1)  # position p predicts token p + 1
        stop = min(row.start + row.length, len(request.prompt_ids) - 1)
        scores: list[Logprob] = []
        for start in range(first, stop, SCORED_AT_ONCE):
            end = min(start + SCORED_AT_ONCE, stop)
            logits = self._logits(hidden[start - row.start : end - row.start], [(request.adapter, end - start)])
            targets = self._tensor(request.token_ids(start + 1, end + 1))
            scores += read_logprobs(logits, targets, [request.params.prompt_logprobs or 0] * len(targets))
        return scores

    def _pool(self, row: StepRow, hidden: Tensor) -> list[float] | None:
        """Return what a row's hidden states (T, C) add to its pooled state: their sum, or the last one and its head."""
        request = row.request
        if request.pooling == "mean":
            pooled = hidden.sum(0, dtype=torch.float32)
        elif not row.is_complete:
            return None
        elif request.head is None:
            pooled = hidden[-1].float()
        else:
            head = self.heads[request.head]
            pooled = head @ hidden[-1].to(head.dtype)
        values: list[float] = pooled.tolist()
        return values

    def _logits(self, hidden: Tensor, rows: Sequence[tuple[str | None, int]]) -> Tensor:
        """Map hidden states (N, C) to logits (N, V), float32, given the adapter of each row and its length."""
        with self.adapters.applied(rows):
            return self.model.logits(hidden).float()

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self.device)


def read_logprobs(logits: Tensor, token_ids: Tensor, tops: Sequence[int]) -> list[Logprob]:
    """Report each row's token (B,) under its raw logits (B, V), beside as many best tokens as the row asks for."""
    chosen, best_ids, best = top_logprobs(logits, token_ids, max(tops))
    return [
        Logprob(logprob, list(zip(ids[:top], values[:top], strict=True)))
        for logprob, ids, values, top in zip(chosen.tolist(), best_ids.tolist(), best.tolist(), tops, strict=True)
    ]
