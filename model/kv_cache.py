"""Keys and values of many sequences in pages of one memory.

Who owns which page is decided elsewhere; here a row only names its pages, and several rows may name the same one. How
attention reads the memory on each device is `cached_attention`'s matter.
"""

import math
import mmap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.cached_attention import PAGED_MULTIPLE, CachedAttention, GatheredAttention, PagedAttention, Row
from model.config import GPTConfig
from model.tiled_attention import tile_size, tiled_attention


class PagedKVCache:
    """The memory: for each layer, keys and values (num_tiles, H_kv, tile, D), page after page.

    On a CPU pages are cut into tiles, in which the tokens of one head lie side by side. On other devices a page is one
    tile, and the heads of one token lie side by side, as paged attention kernels want it.
    """

    def __init__(
        self, config: GPTConfig, *, num_pages: int, page_size: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        self.page_size = page_size
        self.num_pages = num_pages
        shape = (config.num_kv_heads, num_pages * page_size, config.head_dim)
        self.keys = [make_memory(shape, page_size, device, dtype) for _ in range(config.n_layer)]
        self.values = [make_memory(shape, page_size, device, dtype) for _ in range(config.n_layer)]
        self.attention = choose_attention(self.keys[0], page_size)

    def plan(self, rows: Sequence[Row]) -> "KVPlan":
        """Prepare one forward pass over the new tokens of `rows`, concatenated in this order.

        A row may read pages that an earlier or later row of the same pass fills: all is written before any is read.

        Raises:
            ValueError: a row's pages are too few for its tokens.
        """
        for row in rows:
            if len(row.pages) * self.page_size < row.start + row.length:
                raise ValueError(
                    f"{row.start + row.length} tokens do not fit {len(row.pages)} pages of {self.page_size}"
                )
        return KVPlan(self, self._new_slots(rows), self.attention(rows, self.page_size, self.keys[0].device))

    def clear(self, rows: Sequence[Row]) -> None:
        """Make zeros of the keys and values of some rows' new tokens."""
        places = places_of(self.keys[0], self._new_slots(rows))
        for memory in (*self.keys, *self.values):
            vectors_of(memory).index_fill_(0, places, 0)

    def _new_slots(self, rows: Sequence[Row]) -> Tensor:
        slots = [slot for row in rows for slot in new_slots(row, self.page_size)]
        return torch.tensor(slots, device=self.keys[0].device)


class KVPlan:
    """Where one step's tokens are written and what each may read; built once, used by every layer."""

    def __init__(self, cache: PagedKVCache, slots: Tensor, attention: CachedAttention) -> None:
        """`slots` (N,) are the places of the new tokens in the memory, in the order of `attention`'s rows."""
        self.cache = cache
        self._places = places_of(cache.keys[0], slots)
        self.attention = attention

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
        for memory, new in ((keys, k), (values, v)):
            vectors_of(memory).index_copy_(0, self._places, new[0].flatten(0, 1).to(memory.dtype))
        return self.attention.attend(q, keys, values)


def new_slots(row: Row, page_size: int) -> list[int]:
    """Where the new tokens of a row go, counted in tokens from the beginning of the memory."""
    places = range(row.start, row.start + row.length)
    return [row.pages[place // page_size] * page_size + place % page_size for place in places]


def choose_attention(memory: Tensor, page_size: int) -> Callable[[Sequence[Row], int, torch.device], CachedAttention]:
    """Say which way is best for a memory of this kind."""
    if memory.device.type == "cpu":
        return tiled_attention
    head_dim = memory.shape[-1]
    is_half = memory.dtype in (torch.bfloat16, torch.float16)
    is_new_enough = memory.is_cuda and torch.cuda.get_device_capability(memory.device) >= (8, 0)
    fits = page_size % PAGED_MULTIPLE == 0 and head_dim % 8 == 0 and head_dim <= 256
    return PagedAttention.of if is_half and is_new_enough and fits else GatheredAttention


def make_memory(shape: tuple[int, int, int], page_size: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Allocate zeros for (H_kv, tokens, D) as (num_tiles, H_kv, tile, D); on a CPU they cost memory only once written.

    They must be zeros: attention gives no weight to what lies beyond a sequence, but no weight times NaN is NaN.
    Therefore what is not finite has to be cleared before another sequence owns its page.
    """
    num_heads, num_tokens, head_dim = shape
    if torch.device(device).type != "cpu":
        pages = torch.zeros((num_tokens // page_size, page_size, num_heads, head_dim), device=device, dtype=dtype)
        return pages.transpose(1, 2)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # many tiles to one look-up of an address; the pool keeps tiles in use together
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(-1, num_heads, tile_size(page_size), head_dim)


def places_of(memory: Tensor, slots: Tensor) -> Tensor:
    """Say which of a memory's vectors (H_kv * N,) hold the tokens at some slots (N,), one head after another."""
    _, num_heads, tile, head_dim = memory.shape
    by_tile, by_head, by_token = (stride // head_dim for stride in memory.stride()[:3])
    heads = torch.arange(num_heads, device=slots.device)[:, None] * by_head
    return (slots // tile * by_tile + heads + slots % tile * by_token).flatten()


def vectors_of(memory: Tensor) -> Tensor:
    """View a memory as (num_tiles * H_kv * tile, D), in whatever order its dimensions are stored."""
    head_dim = memory.shape[-1]
    if memory.is_contiguous():
        return memory.view(-1, head_dim)
    return memory.as_strided((memory.numel() // head_dim, head_dim), (head_dim, 1))


def page_bytes(config: GPTConfig, page_size: int, dtype: torch.dtype) -> int:
    """Memory of one page over all layers, keys and values, in bytes."""
    return 2 * config.n_layer * config.num_kv_heads * config.head_dim * page_size * dtype.itemsize
