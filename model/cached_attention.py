"""Attention over a paged memory of keys and values, one way for each kind of device.

- `tiled_attention.tiled_attention` reads tiles where they are, those of many rows in one product (CPU)
- `PagedAttention` hands page tables to PyTorch's variable-length kernel (CUDA, half precision, pages of 256 tokens)
- `GatheredAttention` copies what a row may see and attends it under a mask: slow, obvious, everywhere; what the others
  are tested against

A layer's memory is (num_tiles, H_kv, tile, D): a page is one tile or several neighbouring ones. None of the ways knows
who owns a page or what a layer is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

PAGED_MULTIPLE = 256
"""PyTorch's kernel wants pages of a multiple of so many tokens."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's part of a step."""

    pages: Sequence[int]
    """Pages that hold the sequence, in order; together at least `start + length` tokens."""
    start: int
    """Tokens whose keys and values are in the cache already."""
    length: int
    """New tokens of this step."""


class CachedAttention(Protocol):
    """What the new tokens of some rows see."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Answer queries (1, H, N, D) of all new tokens from one layer's memory, in the queries' shape.

        The memory holds the new tokens already.
        """


@dataclass(frozen=True, slots=True)
class PagedAttention:
    """One call of PyTorch's variable-length attention for all rows, decoded and prefilled ones alike.

    Keys are never split between thread blocks, so a row's result does not depend on its neighbours.
    """

    page_size: int
    block_table: Tensor
    """Pages of each row (B, P), int32; what comes after its last one is not read."""
    num_seen: Tensor
    """Tokens of each row, new ones included (B,), int32."""
    query_ends: Tensor
    """Where each row's new tokens end among all (B + 1,), int32, from 0 on."""
    key_ends: Tensor
    """The same of all tokens (B + 1,), int32; the kernel asks for it and reads `num_seen` instead."""
    max_new: int
    """No row has more new tokens."""
    max_seen: int
    """No row has more tokens."""

    @classmethod
    def of(cls, rows: Sequence[Row], page_size: int, device: torch.device) -> Self:
        """Describe the rows of one step."""
        seen = [row.start + row.length for row in rows]
        num_pages = -(-max(seen) // page_size)
        table = [[*row.pages[:num_pages], *[0] * (num_pages - len(row.pages))] for row in rows]
        return cls(
            page_size,
            torch.tensor(table, dtype=torch.int32, device=device),
            torch.tensor(seen, dtype=torch.int32, device=device),
            _running_sum([row.length for row in rows], device),
            _running_sum(seen, device),
            max_new=max(row.length for row in rows),
            max_seen=max(seen),
        )

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn  # brings PyTorch's compiler along: a second and 70 MiB

        y = varlen_attn(
            q[0].transpose(0, 1),  # (N, H, D)
            keys.transpose(1, 2),  # (num_pages, page_size, H_kv, D)
            values.transpose(1, 2),
            self.query_ends,
            self.key_ends,
            self.max_new,
            self.max_seen,
            window_size=(-1, 0),  # causal, the newest query beside the newest key
            enable_gqa=keys.shape[1] != q.shape[1],
            seqused_k=self.num_seen,
            block_table=self.block_table,
            num_splits=1,
        )
        assert isinstance(y, Tensor)
        return y.transpose(0, 1)[None]


class GatheredAttention:
    """Rows with one new token are padded to the longest and attended together; each other row alone."""

    def __init__(self, rows: Sequence[Row], page_size: int, device: torch.device) -> None:
        single = [i for i, row in enumerate(rows) if row.length == 1]
        groups = [single, *([i] for i, row in enumerate(rows) if row.length > 1)]
        tokens = places_in_step(rows)
        self._groups = [
            (
                torch.tensor([[*tokens[i]] for i in group], device=device),  # (B, T)
                *_gather_plan([rows[i] for i in group], page_size, device),
            )
            for group in groups
            if group
        ]

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        y = torch.empty_like(q)
        for tokens, slots, mask in self._groups:
            places = slots // keys.shape[2], slots % keys.shape[2]
            k, v = (memory.transpose(1, 2)[places].transpose(1, 2) for memory in (keys, values))  # (B, H_kv, S, D)
            for copied in (k, v):
                copied.masked_fill_(~mask[:, :, -1, :, None], 0)  # no weight times NaN would be NaN
            part = q[0][:, tokens].transpose(0, 1)  # (B, H, T, D)
            answer = F.scaled_dot_product_attention(part, k, v, attn_mask=mask, enable_gqa=k.shape[1] != q.shape[1])
            y[0][:, tokens] = answer.transpose(0, 1)
        return y


def _gather_plan(rows: Sequence[Row], page_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Name the slots of rows with equally many new tokens (B, S), and which each new token sees (B, 1, T, S)."""
    seen = [row.start + row.length for row in rows]
    places = torch.arange(max(seen), device=device)
    num_pages = -(-max(seen) // page_size)
    table = torch.tensor(
        [[*row.pages[:num_pages], *[0] * (num_pages - len(row.pages))] for row in rows], device=device
    )  # (B, P)
    slots = table[:, places // page_size] * page_size + places % page_size
    new = torch.tensor([[*range(row.start, row.start + row.length)] for row in rows], device=device)  # (B, T)
    return slots, (places <= new[..., None])[:, None]


def places_in_step(rows: Sequence[Row]) -> list[range]:
    """Where each row's new tokens stand among those of all rows."""
    ends = list(accumulate((row.length for row in rows), initial=0))
    return [range(start, stop) for start, stop in pairwise(ends)]


def _running_sum(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(accumulate(counts, initial=0)), dtype=torch.int32, device=device)
