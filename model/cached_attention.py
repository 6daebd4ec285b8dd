"""Attention over a paged memory of keys and values, one way for each kind of device.

- `InPlaceAttention` reads runs of neighbouring pages where they are, each run once for all of its readers (CPU)
- `PagedAttention` hands page tables to PyTorch's variable-length kernel (CUDA, half precision, pages of 256 tokens)
- `GatheredAttention` copies what a row may see and attends it under a mask: slow, obvious, everywhere; what the others
  are tested against

None of them knows who owns a page or what a layer is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

PAGED_MULTIPLE = 256
"""PyTorch's kernel wants pages of a multiple of so many tokens."""
SHORT_RUN = 128
"""A row's runs of fewer tokens than this are copied together: below it a copy is cheaper than one more call."""


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
        """Answer queries (1, H, N, D) of all new tokens from one layer's memory (1, H_kv, S, D), in the queries' shape.

        The memory holds the new tokens already.
        """


def choose_attention(
    memory: Tensor, n_head: int, page_size: int
) -> Callable[[Sequence[Row], int, torch.device], CachedAttention]:
    """Say which way is best for a memory of this kind (1, H_kv, S, D)."""
    if memory.device.type == "cpu":
        return InPlaceAttention
    head_dim = memory.shape[-1]
    is_half = memory.dtype in (torch.bfloat16, torch.float16)
    is_new_enough = memory.is_cuda and torch.cuda.get_device_capability(memory.device) >= (8, 0)
    fits = page_size % PAGED_MULTIPLE == 0 and head_dim % 8 == 0 and head_dim <= 256
    return PagedAttention.of if is_half and is_new_enough and fits else GatheredAttention


class InPlaceAttention:
    """Reads memory where it is, in as few pieces as the pages of a row allow, and joins the pieces by log-sum-exp.

    Within a piece that lies before all of a row's new tokens the order of keys does not matter: it is read without a
    mask, by all rows that share it at once, and neighbouring pages are one piece whichever comes first.
    """

    def __init__(self, rows: Sequence[Row], page_size: int, device: torch.device) -> None:
        self._first: list[_Piece] = []
        """One for each row, in order."""
        self._further: list[_Piece] = []
        tokens = _places_in_step(rows)
        num_shared = [0] * len(rows)
        for members, pages in find_shared(rows, page_size):
            index = torch.tensor([token for i in members for token in tokens[i]])
            self._further += [_Piece(index, span) for span in find_spans(pages, page_size, page_size)]
            for i in members:
                num_shared[i] += len(pages)
        for i, row in enumerate(rows):
            new = slice(tokens[i].start, tokens[i].stop)
            pieces = [_Piece(new, span) for span in own_spans(row, num_shared[i], page_size)]
            if row.length > 1:
                pieces.insert(0, _Piece(new, new_span(row, page_size), is_causal=True))
            self._first.append(pieces[0])
            self._further += pieces[1:]

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        answers = [piece.attend(q, keys, values) for piece in self._first]
        y = torch.cat([answer for answer, _ in answers])  # (N, H, D)
        if self._further:
            weight = torch.cat([weight for _, weight in answers])  # (N, H)
            for piece in self._further:
                _join(y, weight, piece.tokens, *piece.attend(q, keys, values))
        return y.transpose(0, 1)[None]


@dataclass(frozen=True, slots=True)
class _Span:
    """Some tokens of the memory: neighbours, or those an index names."""

    start: int
    length: int
    index: Tensor | None = None

    def read(self, memory: Tensor) -> Tensor:
        if self.index is not None:
            return memory.index_select(2, self.index)
        return memory.narrow(2, self.start, self.length)  # (1, H_kv, S, D)


@dataclass(frozen=True, slots=True)
class _Piece:
    """New tokens, by place in the step, and some memory that all of them see."""

    tokens: slice | Tensor
    span: _Span
    is_causal: bool = False
    """The span is the new tokens themselves, so each sees its part up to itself."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the tokens read here (T, H, D), and the log of the sum of its weights (T, H)."""
        answer, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[:, :, self.tokens], self.span.read(keys), self.span.read(values), 0.0, self.is_causal
        )
        return answer[0].transpose(0, 1), weight[0].transpose(0, 1)


def _join(y: Tensor, weight: Tensor, tokens: slice | Tensor, answer: Tensor, its_weight: Tensor) -> None:
    """Take into `y` (N, H, D) and its log-weights (N, H) what some tokens read elsewhere."""
    old = weight[tokens]
    new = torch.logaddexp(old, its_weight)
    y[tokens] = (y[tokens] * (old - new).exp()[..., None] + answer * (its_weight - new).exp()[..., None]).to(y.dtype)
    weight[tokens] = new


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


def own_spans(row: Row, num_shared: int, page_size: int) -> list[_Span]:
    """Cover what a row reads alone: after the shared pages, up to its new tokens, or with it if there is just one."""
    num_seen = row.start + (1 if row.length == 1 else 0)
    num_pages = -(-num_seen // page_size)
    return find_spans(row.pages[num_shared:num_pages], page_size, num_seen - (num_pages - 1) * page_size)


def new_span(row: Row, page_size: int) -> _Span:
    """Cover the new tokens of a row, in order."""
    pages = row.pages[row.start // page_size : -(-(row.start + row.length) // page_size)]
    skipped = row.start % page_size
    if all(page == pages[0] + i for i, page in enumerate(pages)):
        return _Span(pages[0] * page_size + skipped, row.length)
    slots = [slot for page in pages for slot in range(page * page_size, (page + 1) * page_size)]
    return _Span(0, row.length, torch.tensor(slots[skipped : skipped + row.length]))


def find_spans(pages: Sequence[int], page_size: int, last_length: int) -> list[_Span]:
    """Cover pages, of which the last holds only so many tokens, by few spans; the order of pages is not kept."""
    if not pages:
        return []
    runs: list[tuple[int, int]] = []  # (first slot, number of tokens)
    lengths = dict.fromkeys(pages, page_size) | {pages[-1]: last_length}
    for page in sorted(pages):
        start, length = runs[-1] if runs else (0, -1)
        if start + length == page * page_size:
            runs[-1] = (start, length + lengths[page])
        else:
            runs.append((page * page_size, lengths[page]))
    short = [run for run in runs if run[1] < SHORT_RUN]
    if len(short) < 2:
        return [_Span(*run) for run in runs]
    slots = [slot for start, length in short for slot in range(start, start + length)]
    gathered = _Span(0, len(slots), torch.tensor(slots))
    return [gathered, *(_Span(*run) for run in runs if run[1] >= SHORT_RUN)]


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
        y = varlen_attn(
            q[0].transpose(0, 1),  # (N, H, D)
            self._pages(keys),
            self._pages(values),
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

    def _pages(self, memory: Tensor) -> Tensor:
        tokens = memory[0].transpose(0, 1)  # (S, H_kv, D)
        return tokens.view(-1, self.page_size, *tokens.shape[1:])  # (num_pages, page_size, H_kv, D)


class GatheredAttention:
    """Rows with one new token are padded to the longest and attended together; each other row alone."""

    def __init__(self, rows: Sequence[Row], page_size: int, device: torch.device) -> None:
        single = [i for i, row in enumerate(rows) if row.length == 1]
        groups = [single, *([i] for i, row in enumerate(rows) if row.length > 1)]
        tokens = _places_in_step(rows)
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
            k, v = (memory[0][:, slots].transpose(0, 1) for memory in (keys, values))  # (B, H_kv, S, D)
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


def _places_in_step(rows: Sequence[Row]) -> list[range]:
    """Where each row's new tokens stand among those of all rows."""
    ends = list(accumulate((row.length for row in rows), initial=0))
    return [range(start, stop) for start, stop in pairwise(ends)]


def _running_sum(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(accumulate(counts, initial=0)), dtype=torch.int32, device=device)
