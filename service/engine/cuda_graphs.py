"""Decode steps captured in CUDA graphs: one launch for a whole step instead of hundreds, for a few sizes of batch.

A graph replays the same kernels on the same memory, so what changes from step to step is written into a buffer first.
Batches between two sizes are filled up with copies of their first row, which write the same values to the same place.
A step without graphs gives the same tokens and remains for everything else: prompts, adapters, larger batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.cached_attention import CachedAttention, PagedAttention, Row
from model.gpt import GPT
from model.kv_cache import KVPlan, PagedKVCache, new_slots

FINE_SIZES = (1, 2, 4, 8)
COARSE_STEP = 8
NUM_WARM_UPS = 2
"""Runs before a capture, in which libraries choose their kernels and allocate what they keep."""

Step = Callable[[], Tensor]
Capture = Callable[[Step], tuple[Tensor, Callable[[], None]]]
"""From a step to its result's memory and to what runs it again on the same memory."""


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """All numbers of one decode step, side by side in one buffer (B, 4 + P), int32, so that one copy brings them."""

    buffer: Tensor

    @property
    def token_ids(self) -> Tensor:
        return self.buffer[:, 0].long()

    @property
    def positions(self) -> Tensor:
        return self.buffer[:, 1].long()

    @property
    def slots(self) -> Tensor:
        return self.buffer[:, 2].long()

    @property
    def num_seen(self) -> Tensor:
        return self.buffer[:, 3].contiguous()

    @property
    def block_table(self) -> Tensor:
        return self.buffer[:, 4:].contiguous()

    def fill(self, token_ids: Sequence[int], rows: Sequence[Row], page_size: int) -> None:
        """Write a step; rows that are missing are copies of the first."""
        size, width = self.buffer.shape
        numbers = [
            [token_id, row.start, *new_slots(row, page_size), row.start + 1, *row.pages]
            for token_id, row in zip(token_ids, rows, strict=True)
        ]
        padded = [line[:width] + [0] * (width - len(line)) for line in numbers]
        self.buffer.copy_(torch.tensor(padded + padded[:1] * (size - len(rows)), dtype=torch.int32), non_blocking=True)


Attend = Callable[[DecodeInputs, int], CachedAttention]
"""From a step's inputs and the tokens of a page to attention that reads those inputs when it runs."""


class DecodeGraphs:
    """The captured steps of one model and its cache."""

    def __init__(
        self,
        model: GPT,
        cache: PagedKVCache,
        *,
        max_num_seqs: int,
        capture: "Capture | None" = None,
        attend: "Attend | None" = None,
    ) -> None:
        """Capture every size, the largest first, so that smaller ones find its memory; the cache must be empty.

        Args:
            model: on the device of the cache.
            cache: what the steps write to and read.
            max_num_seqs: rows of the largest batch.
            capture: how a step is captured; absent: in a CUDA graph.
            attend: how rows attend; absent: as `PagedAttention` does.
        """
        self._model = model
        self._cache = cache
        self._attend = attend or paged_attention(model.config.block_size)
        capture = capture or CudaCapture(cache.keys[0].device)
        self._width = 4 + -(-model.config.block_size // cache.page_size)
        self._graphs: dict[int, tuple[DecodeInputs, Tensor, Callable[[], None]]] = {}
        for size in reversed(graph_sizes(max_num_seqs)):
            inputs = self._make_inputs(size)
            self._graphs[size] = (inputs, *capture(lambda inputs=inputs: self._step(inputs)))  # type: ignore[misc]
        self._sizes = sorted(self._graphs)

    def covers(self, rows: Sequence[Row]) -> bool:
        """Whether a step is one token of each row, and few enough rows."""
        return len(rows) <= self._sizes[-1] and all(row.length == 1 for row in rows)

    def run(self, token_ids: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Compute hidden states (N, C) of the rows' newest tokens; valid until the next run."""
        size = next(size for size in self._sizes if size >= len(rows))
        inputs, hidden, replay = self._graphs[size]
        inputs.fill(token_ids, rows, self._cache.page_size)
        replay()
        return hidden[: len(rows)]

    def _make_inputs(self, size: int) -> DecodeInputs:
        """One token at the beginning of page 0 for each row, so that a capture computes something harmless."""
        inputs = DecodeInputs(torch.zeros((size, self._width), dtype=torch.int32, device=self._cache.keys[0].device))
        inputs.fill([0], [Row(pages=[0], start=0, length=1)], self._cache.page_size)
        return inputs

    def _step(self, inputs: DecodeInputs) -> Tensor:
        plan = KVPlan(self._cache, inputs.slots, self._attend(inputs, self._cache.page_size))
        hidden: Tensor = self._model(inputs.token_ids[None], inputs.positions[None], plan=plan)  # (1, B, C)
        return hidden[0]


class CudaCapture:
    """Captures steps in CUDA graphs that share their memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> tuple[Tensor, Callable[[], None]]:
        with torch.cuda.device(self._device):
            return self._capture(step)

    def _capture(self, step: Step) -> tuple[Tensor, Callable[[], None]]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = step()
        return result, graph.replay


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Sizes of batch that are captured: fine where a row more costs most, up to the largest batch."""
    coarse = range(FINE_SIZES[-1] + COARSE_STEP, max_num_seqs + COARSE_STEP, COARSE_STEP)
    sizes = [size for size in (*FINE_SIZES, *coarse) if size < max_num_seqs]
    return [*sizes, max_num_seqs]


def paged_attention(block_size: int) -> Attend:
    """Attention through page tables, with the bounds of every step instead of those of one."""

    def attend(inputs: DecodeInputs, page_size: int) -> CachedAttention:
        num_seen = inputs.num_seen
        ends = torch.arange(len(num_seen) + 1, dtype=torch.int32, device=num_seen.device)
        key_ends = F.pad(num_seen.cumsum(0, dtype=torch.int32), (1, 0))
        return PagedAttention(page_size, inputs.block_table, num_seen, ends, key_ends, max_new=1, max_seen=block_size)

    return attend


def can_capture(cache: PagedKVCache) -> bool:
    """Whether the cache's attention takes its page tables from the device, as a graph needs it."""
    return cache.attention == PagedAttention.of
