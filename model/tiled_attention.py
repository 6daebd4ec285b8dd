"""Attention over a paged memory on a CPU: tiles are read where they lie, many in one product, whoever they belong to.

A tile is some tokens of one sequence, all heads of it side by side (H_kv, tile, D): a page, or part of a large one. So
a decoding row reads a few whole tiles, and neighbouring tiles of all rows are one batch of small products: twice the
speed of one call of `scaled_dot_product_attention` for each row (docs/benchmarks.md).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from math import inf, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from model.cached_attention import CachedAttention, Row, places_in_step

MAX_TILE = 32
"""Tokens of a tile at most: what a row reads beyond its newest token is computed in vain."""


def tiled_attention(rows: Sequence[Row], page_size: int, device: torch.device) -> CachedAttention:
    """Choose the way for the rows of a step."""
    if [row.length for row in rows] == [1]:
        return OneToken(rows[0], page_size)
    return TiledAttention(rows, page_size)


def tile_size(page_size: int) -> int:
    """Tokens of a tile: as many as divide a page evenly, up to `MAX_TILE`."""
    return next(size for size in range(min(page_size, MAX_TILE), 0, -1) if page_size % size == 0)


class OneToken:
    """One new token of one row and nothing else, by the fewest calls: they cost more than the arithmetic does."""

    def __init__(self, row: Row, page_size: int) -> None:
        tiles, size = tiles_of(row.pages, row.start + 1, page_size), tile_size(page_size)
        self._runs = find_runs(tiles)
        self._num_tiles = len(tiles)
        self._unseen = len(tiles) * size - (row.start + 1)
        """Tokens at the end of the last tile."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Answer the query (1, H, 1, D), in its shape."""
        kv_heads, size, head_dim = keys.shape[1:]
        num_tiles, dtype = self._num_tiles, torch.promote_types(q.dtype, torch.float32)
        k, v = self._read(keys, dtype), self._read(values, dtype)
        each = q.to(dtype) / sqrt(head_dim)
        each = each.view(1, kv_heads, -1, head_dim).expand(num_tiles, -1, -1, -1).flatten(0, 1)
        score = torch.bmm(each, k.transpose(1, 2)).view(num_tiles, -1, size)  # (N, H, tile)
        if self._unseen:
            score[-1, :, -self._unseen :] = -inf
        share = score.transpose(0, 1).flatten(1).softmax(-1)  # (H, S)
        share = share.view(-1, num_tiles, size).transpose(0, 1).reshape(num_tiles * kv_heads, -1, size)
        return torch.bmm(share, v).view(num_tiles, -1).sum(0).view_as(q).to(q.dtype)

    def _read(self, memory: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the row's tiles (N * H_kv, tile, D)."""
        parts = [memory[run.tile : run.tile + run.length] for run in self._runs]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(0, 1).to(dtype)


class TiledAttention:
    """Rows with one new token are attended together, each other row alone.

    Memory is (num_tiles, H_kv, tile, D). What several decoding rows have in common is read once for all of them.
    """

    def __init__(self, rows: Sequence[Row], page_size: int) -> None:
        tokens = places_in_step(rows)
        single = [i for i, row in enumerate(rows) if row.length == 1]
        self._single = torch.tensor([tokens[i].start for i in single])
        self._decoding = Decoding([rows[i] for i in single], page_size) if single else None
        self._longer = [
            (slice(tokens[i].start, tokens[i].stop), Chunk(row, page_size))
            for i, row in enumerate(rows)
            if row.length > 1
        ]

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self._decoding is not None and not self._longer:
            return self._decoding.attend(q[0].transpose(0, 1), keys, values).transpose(0, 1)[None]
        y = torch.empty_like(q)
        if self._decoding is not None:
            answer = self._decoding.attend(q[0].transpose(0, 1)[self._single], keys, values)
            y[0][:, self._single] = answer.transpose(0, 1)
        for new, chunk in self._longer:
            y[:, :, new] = chunk.attend(q[:, :, new], keys, values)
        return y


class Chunk:
    """Several new tokens of one row: what they see is copied together and attended under a mask."""

    def __init__(self, row: Row, page_size: int) -> None:
        self._num_seen = row.start + row.length
        self._runs = find_runs(tiles_of(row.pages, self._num_seen, page_size))
        is_first = row.start == 0
        self._mask = None if is_first else torch.ones(row.length, self._num_seen, dtype=torch.bool).tril(row.start)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Answer queries (1, H, T, D), in their shape."""
        k, v = (copy_tiles(memory, self._runs)[:, :, : self._num_seen] for memory in (keys, values))
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=self._mask, is_causal=self._mask is None, enable_gqa=k.shape[1] != q.shape[1]
        )


class Decoding:
    """The newest token of each row: its own tiles, and those it shares."""

    def __init__(self, rows: Sequence[Row], page_size: int) -> None:
        self._shared: list[tuple[Tensor, list[Run]]] = []
        """Rows (M,) and the tiles that all of them see."""
        num_shared = [0] * len(rows)
        for members, pages in find_shared(rows, page_size):
            tiles = tiles_of(pages, len(pages) * page_size, page_size)
            self._shared.append((torch.tensor(members), find_runs(tiles)))
            for i in members:
                num_shared[i] += len(pages)
        self._own = OwnTiles(
            [Row(row.pages[n:], row.start - n * page_size, 1) for row, n in zip(rows, num_shared, strict=True)],
            page_size,
        )

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Answer queries (B, H, D), in their shape."""
        y, score = self._own.attend(q, keys, values)
        weight = score.logsumexp(-1) if self._shared else score  # (B, H)
        for members, runs in self._shared:
            part = q[members].transpose(0, 1)[None]  # (1, H, M, D)
            k, v = (copy_tiles(memory, runs) for memory in (keys, values))
            answer, its_weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(part, k, v)
            join(y, weight, members, answer[0].transpose(0, 1), its_weight[0].transpose(0, 1))
        return y.to(q.dtype)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tiles, which one product reads where they are, and its place among the products of all."""

    tile: int
    place: int
    length: int

    def places(self, heads: int) -> slice:
        """The place, counted in tiles and heads."""
        return slice(self.place * heads, (self.place + self.length) * heads)

    def read(self, memory: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the memory (length * H_kv, tile, D)."""
        return memory[self.tile : self.tile + self.length].flatten(0, 1).to(dtype)


class OwnTiles:
    """The tiles that each row reads alone.

    Products of a query with the keys of each tile, a softmax over each row's tiles, and each tile's part of the answer.
    """

    def __init__(self, rows: Sequence[Row], page_size: int) -> None:
        size = tile_size(page_size)
        owned = [tiles_of(row.pages, row.start + 1, page_size) for row in rows]
        reads = sorted((tile, i) for i, tiles in enumerate(owned) for tile in tiles)
        self._runs = find_runs([tile for tile, _ in reads])
        place = {read: n for n, read in enumerate(reads)}
        longest = max(map(len, owned))
        self._table = torch.tensor(
            [
                [*(place[tile, i] for tile in tiles), *[len(reads)] * (longest - len(tiles))]
                for i, tiles in enumerate(owned)
            ]
        )  # (B, most tiles of a row); after a row's own stands one more, of which nothing is read
        turns = [{tile: turn for turn, tile in enumerate(tiles)} for tiles in owned]
        self._owner = torch.tensor([i for _, i in reads])  # (N,)
        self._turn = torch.tensor([turns[i][tile] for tile, i in reads])  # (N,), among its row's tiles
        self._is_unseen = torch.zeros(len(reads) + 1, 1, size, dtype=torch.bool)
        self._is_unseen[-1] = True
        for i, (row, tiles) in enumerate(zip(rows, owned, strict=True)):
            self._is_unseen[place[tiles[-1], i], 0, row.start + 1 - (len(tiles) - 1) * size :] = True

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return what queries (B, H, D) read (B, H, D), and the scores that it was weighed by (B, H, S)."""
        kv_heads, size, head_dim = keys.shape[1:]
        num_tiles, num_rows, heads = len(self._owner), *q.shape[:2]
        dtype = torch.promote_types(q.dtype, torch.float32)
        each = q.to(dtype)[self._owner].view(num_tiles * kv_heads, -1, head_dim)  # a query for each tile and head
        score = each.new_empty(num_tiles + 1, heads, size)
        products = score.view((num_tiles + 1) * kv_heads, -1, size)
        for run in self._runs:
            at, k = run.places(kv_heads), run.read(keys, dtype)
            products[at].baddbmm_(each[at], k.transpose(1, 2), beta=0, alpha=1 / sqrt(head_dim))
        score.masked_fill_(self._is_unseen, -inf)
        score = score[self._table].transpose(1, 2).flatten(2)  # (B, H, S)
        share = score.softmax(-1).view(num_rows, heads, -1, size)[self._owner, :, self._turn]  # (N, H, tile)
        share = share.view(num_tiles * kv_heads, -1, size)
        parts = torch.empty_like(each)
        for run in self._runs:
            at = run.places(kv_heads)
            torch.bmm(share[at], run.read(values, dtype), out=parts[at])
        y = each.new_zeros(num_rows, heads, head_dim)
        return y.index_add_(0, self._owner, parts.view(num_tiles, heads, head_dim)), score


def join(y: Tensor, weight: Tensor, rows: Tensor, answer: Tensor, its_weight: Tensor) -> None:
    """Take into `y` (B, H, D) and its log-weights (B, H) what some rows read elsewhere."""
    old = weight[rows]
    new = torch.logaddexp(old, its_weight)
    y[rows] = y[rows] * (old - new).exp()[..., None] + answer * (its_weight - new).exp()[..., None]
    weight[rows] = new


def copy_tiles(memory: Tensor, runs: Sequence[Run]) -> Tensor:
    """Return the tokens of some tiles in order, (1, H_kv, tiles * tile, D)."""
    parts = [memory[run.tile : run.tile + run.length].transpose(0, 1) for run in runs]  # (H_kv, tiles, tile, D)
    return torch.cat(parts, dim=1).flatten(1, 2)[None]


def tiles_of(pages: Sequence[int], num_tokens: int, page_size: int) -> list[int]:
    """Name the tiles that hold so many tokens of a sequence, in order."""
    per_page = page_size // tile_size(page_size)
    tiles = [page * per_page + part for page in pages for part in range(per_page)]
    return tiles[: -(-num_tokens // tile_size(page_size))]


def find_runs(tiles: Sequence[int]) -> list[Run]:
    """Split tiles into runs of neighbours, in their order."""
    starts = [i for i, tile in enumerate(tiles) if i == 0 or tile != tiles[i - 1] + 1]
    return [Run(tiles[start], start, stop - start) for start, stop in pairwise([*starts, len(tiles)])]


def find_shared(rows: Sequence[Row], page_size: int) -> Iterator[tuple[list[int], Sequence[int]]]:
    """Find the pages that several rows read: those rows, and the pages, as many at once as all of them have in common.

    Shared are whole beginnings of sequences, and only pages that were full before the step's tokens of a row.
    """
    full = [row.start // page_size for row in rows]
    groups = [(list(range(len(rows))), 0)]
    while groups:
        members, first = groups.pop()
        by_page: defaultdict[int, list[int]] = defaultdict(list)
        for i in members:
            if first < full[i]:
                by_page[rows[i].pages[first]].append(i)
        for same in by_page.values():
            if len(same) > 1:
                columns = zip(*(rows[i].pages[first : full[i]] for i in same), strict=False)
                length = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
                yield same, rows[same[0]].pages[first : first + length]
                groups.append((same, first + length))
