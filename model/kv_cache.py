"""Keys and values of many sequences in pages of one memory, and attention over them.

Who owns which page is decided elsewhere; here a row only names its pages. A page may hold a few tokens (memory is
shared tightly, reading it means gathering) or a whole sequence (attention reads it in place, the faster way on a CPU).
"""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import GPTConfig

MAX_SPREAD = 2
"""Decode rows are attended in place while the range of their pages is less than this many times as wide as needed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's part of a step."""

    pages: Sequence[int]
    """Pages that hold the sequence, in order; together at least `start + length` tokens."""
    start: int
    """Tokens whose keys and values are in the cache already."""
    length: int
    """New tokens of this step."""


class PagedKVCache:
    """The memory: for each layer, keys and values (num_pages, H, page_size, D)."""

    def __init__(
        self, config: GPTConfig, *, num_pages: int, page_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
        self.page_size = page_size
        self.num_pages = num_pages
        self.keys = [make_memory(shape, device, dtype) for _ in range(config.n_layer)]
        self.values = [make_memory(shape, device, dtype) for _ in range(config.n_layer)]

    def plan(self, rows: Sequence[Row]) -> "KVPlan":
        """Prepare one forward pass over the new tokens of `rows`, concatenated in this order, single tokens first.

        Raises:
            ValueError: a row's pages are too few for its tokens.
        """
        return KVPlan(self, rows)


class KVPlan:
    """Where one step's tokens are written and what each may read; built once, used by every layer.

    The first rows with a single new token are the decode rows and are attended together; every further row is a
    chunk of a prompt and is attended alone.
    """

    def __init__(self, cache: PagedKVCache, rows: Sequence[Row]) -> None:
        self.cache = cache
        device = cache.keys[0].device
        pages: list[int] = []
        offsets: list[int] = []
        for row in rows:
            if len(row.pages) * cache.page_size < row.start + row.length:
                raise ValueError(
                    f"{row.start + row.length} tokens do not fit {len(row.pages)} pages of {cache.page_size}"
                )
            places = range(row.start, row.start + row.length)
            pages += [row.pages[place // cache.page_size] for place in places]
            offsets += [place % cache.page_size for place in places]
        self.write_pages = torch.tensor(pages, device=device)  # (N,)
        self.write_offsets = torch.tensor(offsets, device=device)  # (N,)
        num_decode = next((i for i, row in enumerate(rows) if row.length > 1), len(rows))
        self.decode = _DecodeRows(cache, rows[:num_decode]) if num_decode else None
        self.chunks = [_Chunk(cache, row) for row in rows[num_decode:]]
        self.sizes = [num_decode, *(row.length for row in rows[num_decode:])]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        """Store the new keys and values, then attend each new token to its own sequence up to itself.

        Args:
            layer: which layer's memory.
            q: queries (1, H, N, D) of all new tokens in row order.
            k: keys (1, H_kv, N, D).
            v: values (1, H_kv, N, D).
            dropout: must be 0: what is cached is served, never trained on.

        Returns:
            (1, H, N, D).
        """
        assert dropout == 0, "a model that serves from a cache is in evaluation mode"
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.write_pages, :, self.write_offsets] = k[0].transpose(0, 1).to(keys.dtype)  # (N, H_kv, D)
        values[self.write_pages, :, self.write_offsets] = v[0].transpose(0, 1).to(values.dtype)
        decode_q, *chunk_qs = torch.split(q, self.sizes, dim=2)
        parts = [] if self.decode is None else [self.decode.attend(decode_q, keys, values)]
        parts += [chunk.attend(part, keys, values) for chunk, part in zip(self.chunks, chunk_qs, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class _DecodeRows:
    """Rows with one new token each, attended in one call."""

    def __init__(self, cache: PagedKVCache, rows: Sequence[Row]) -> None:
        device = cache.keys[0].device
        seen = [row.start + 1 for row in rows]
        self.span = max(seen)  # S
        pages_needed = -(-self.span // cache.page_size)
        first, last = min(row.pages[0] for row in rows), max(row.pages[0] for row in rows)
        self.in_place = pages_needed == 1 and last - first < MAX_SPREAD * len(rows)
        if self.in_place:  # a batch row is a page of the range first..last
            self.first, self.width = first, last - first + 1
            self.slots = torch.tensor([row.pages[0] - first for row in rows], device=device)
            lengths = torch.ones(self.width, dtype=torch.int64, device=device)  # unneeded pages: one token, no NaN
            lengths[self.slots] = torch.tensor(seen, device=device)
            self.is_dense = self.width == len(rows) and all(row.pages[0] == first + i for i, row in enumerate(rows))
        else:
            table = [[*row.pages[:pages_needed], *[row.pages[0]] * (pages_needed - len(row.pages))] for row in rows]
            self.table = torch.tensor(table, device=device)  # (B, P)
            lengths = torch.tensor(seen, device=device)
        self.mask = None
        if min(seen) < self.span or not self.in_place:
            self.mask = (torch.arange(self.span, device=device) < lengths[:, None])[:, None, None]  # (B, 1, 1, S)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        num_kv_heads = keys.shape[1]
        # Query heads of one group read the same keys, so a group stands where query time would: no repeated keys.
        q = q[0].transpose(0, 1)  # (B, H, D)
        q = q.reshape(len(q), num_kv_heads, -1, q.shape[-1])  # (B, H_kv, G, D)
        if not self.in_place:
            y = F.scaled_dot_product_attention(q, self._gather(keys), self._gather(values), attn_mask=self.mask)
        else:
            k, v = (m[self.first : self.first + self.width, :, : self.span] for m in (keys, values))
            if self.is_dense:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
            else:
                spread = q.new_zeros((self.width, *q.shape[1:])).index_copy_(0, self.slots, q)
                y = F.scaled_dot_product_attention(spread, k, v, attn_mask=self.mask)[self.slots]
        return y.flatten(1, 2).transpose(0, 1)[None]  # (1, H, B, D)

    def _gather(self, memory: Tensor) -> Tensor:
        return memory[self.table].transpose(1, 2).flatten(2, 3)[:, :, : self.span]  # (B, H_kv, S, D)


class _Chunk:
    """One row with several new tokens."""

    def __init__(self, cache: PagedKVCache, row: Row) -> None:
        device = cache.keys[0].device
        self.span = row.start + row.length  # S
        self.pages = row.pages[: -(-self.span // cache.page_size)]
        self.table = torch.tensor(self.pages, device=device)
        self.mask = None
        if row.start:
            new = torch.arange(row.start, self.span, device=device)
            self.mask = torch.arange(self.span, device=device) <= new[:, None]  # (T, S)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        k, v = self._gather(keys), self._gather(values)
        grouped = k.shape[1] != q.shape[1]
        is_causal = self.mask is None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=is_causal, enable_gqa=grouped)

    def _gather(self, memory: Tensor) -> Tensor:
        if len(self.pages) == 1:  # read in place
            return memory[self.pages[0] : self.pages[0] + 1, :, : self.span]  # (1, H_kv, S, D)
        return memory[self.table].transpose(0, 1).flatten(1, 2)[None, :, : self.span]  # (1, H_kv, S, D)


def make_memory(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Allocate zeros; on a CPU, where they cost memory only once written.

    They must be zeros: attention gives no weight to what lies beyond a sequence, but no weight times NaN is NaN.
    """
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a sequence writes a little here and there; huge pages would be its all
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


def page_bytes(config: GPTConfig, page_size: int, dtype: torch.dtype) -> int:
    """Memory of one page over all layers, keys and values, in bytes."""
    return 2 * config.n_layer * config.num_kv_heads * config.head_dim * page_size * dtype.itemsize
