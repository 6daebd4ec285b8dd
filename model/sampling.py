"""Choose the next token of many sequences at once, each row with its own settings.

It knows logits and token ids, not requests, batching or text. The noise of a row is a pure function of
(seed, choice, position), so the rows beside it never change its result.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from model.sampling_params import SamplingParams

NUCLEUS_CANDIDATES = 1024
"""Sorting a whole vocabulary is slow; nearly every nucleus lies within this many top tokens."""
TOP_CANDIDATES = 20
"""Always found, however few are reported: which of equally likely tokens come first depends on how many are sought."""
SMALLEST_DIVISOR = 1e-5
"""Of logits. Dividing by less gives the same most likely tokens, until it gives infinity."""


class Constraint(Protocol):
    """Knows which tokens may follow."""

    def mask(self) -> bytes:
        """Return a bit for each token, lowest first; at least one is set."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """What sampling needs to know of one sequence."""

    params: SamplingParams
    choice: int
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    end_ids: Sequence[int]
    """Banned while fewer than `min_tokens` outputs exist."""
    constraint: Constraint | None = None
    """Stronger than all else: what it forbids is never drawn."""


def sample(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Draw one token per row: edit logits, temperature, top-k, top-p, min-p, then one uniform number per row.

    Args:
        logits: raw next-token logits (B, V), float32; not changed.
        rows: settings and history of each row.

    Returns:
        token ids (B,), int64. If bias and bans leave a row nothing to choose among the allowed tokens, that
        row ignores them; if its constraint and `allowed_token_ids` have nothing in common, it ignores those, too.
    """
    logits = edit_logits(logits, rows)
    token_ids = logits.argmax(dim=-1)  # of equal logits the lowest id
    random = [i for i, row in enumerate(rows) if row.params.temperature > 0]
    if random:
        index = torch.tensor(random, device=logits.device)
        token_ids[index] = draw(logits[index], [rows[i] for i in random])
    return token_ids


def edit_logits(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Apply penalties, bias, bans and what is allowed at all (B, V); returns `logits` itself if nothing asks."""
    followers = keep_followers(logits, [row.constraint for row in rows])
    logits = _unless_empty(keep_allowed(followers, [row.params.allowed_token_ids for row in rows]), followers)
    scales: list[tuple[int, int, float]] = []  # (row, token, value) triples, one list for each kind of edit
    shifts: list[tuple[int, int, float]] = []
    bans: list[tuple[int, int, float]] = []
    for i, row in enumerate(rows):
        params = row.params
        if params.repetition_penalty != 1:
            penalty = max(params.repetition_penalty, SMALLEST_DIVISOR)
            scales += [(i, t, penalty) for t in {*row.prompt_ids, *row.output_ids}]
        if params.presence_penalty or params.frequency_penalty:
            counts = Counter(row.output_ids)
            shifts += [(i, t, -params.presence_penalty - n * params.frequency_penalty) for t, n in counts.items()]
        for token_id, bias in params.logit_bias:
            (bans if bias <= -100 else shifts).append((i, token_id, bias))
        if len(row.output_ids) < params.min_tokens:
            bans += [(i, t, 0.0) for t in row.end_ids]
        bans += [(i, word[-1], 0.0) for word in params.bad_words if _ends_with(row.output_ids, word[:-1])]
    if not (scales or shifts or bans):
        return logits
    edited = logits.clone()
    if scales:
        place, divisor = _unzip(scales, logits)
        old = edited[place]
        edited[place] = torch.where(old > 0, old / divisor, old * divisor)
    if shifts:
        place, shift = _unzip(shifts, logits)
        edited.index_put_(place, shift, accumulate=True)
    if bans:
        place, _ = _unzip(bans, logits)
        edited[place] = -torch.inf
    return _unless_empty(edited, logits)


def keep_followers(logits: Tensor, constraints: Sequence[Constraint | None]) -> Tensor:
    """Leave only what each row's constraint allows (B, V); returns `logits` itself if no row has one."""
    masks = [(i, constraint.mask()) for i, constraint in enumerate(constraints) if constraint is not None]
    if not masks:
        return logits
    packed = torch.frombuffer(bytearray().join(mask for _, mask in masks), dtype=torch.uint8).to(logits.device)
    # A table of eight numbers for each byte and one addition are ten times faster than filling by a boolean mask.
    bias = torch.nn.functional.embedding(packed.int(), _bias_of_bytes(logits.device)).view(len(masks), -1)
    index = torch.tensor([i for i, _ in masks], device=logits.device)
    return logits.index_add(0, index, bias[:, : logits.shape[-1]])


def keep_allowed(logits: Tensor, allowed: Sequence[Sequence[int] | None]) -> Tensor:
    """Leave only the allowed tokens of each row (B, V); returns `logits` itself if every row allows all."""
    if all(token_ids is None for token_ids in allowed):
        return logits
    is_allowed = torch.zeros_like(logits, dtype=torch.bool)
    for i, token_ids in enumerate(allowed):
        is_allowed[i, slice(None) if token_ids is None else list(token_ids)] = True
    return logits.where(is_allowed, -torch.inf)


def draw(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Draw from each row's filtered distribution by inverting its cumulative sum in vocabulary order.

    One uniform number decides a row, so a last-bit difference in the logits can move the result only when that number
    falls within a last bit of a border. Noise per token, or a sum in sorted order, would be far easier to upset.
    """
    params = [row.params for row in rows]
    temperature = _column([max(p.temperature, SMALLEST_DIVISOR) for p in params], logits)
    probs = torch.softmax(logits / temperature, dim=-1)  # (B, V)
    if any(0 < p.top_k < logits.shape[-1] for p in params):
        probs = keep_top_k(probs, [p.top_k for p in params])
    if any(p.top_p < 1 for p in params):
        probs = keep_top_p(probs, [p.top_p for p in params])
    if any(p.min_p > 0 for p in params):
        floor = _column([p.min_p for p in params], probs) * probs.amax(dim=-1, keepdim=True)
        probs = probs.where(probs >= floor, 0)
    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    noise = [uniform(row.params.seed, row.choice, len(row.output_ids)) for row in rows]
    target = _column(noise, cumulative) * cumulative[:, -1:]  # strictly below the total, as noise is below 1
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def keep_top_k(probs: Tensor, top_k: Sequence[int]) -> Tensor:
    """Zero all but the k most likely tokens of each row (B, V); 0 keeps all; ties with the k-th stay."""
    vocab_size = probs.shape[-1]
    wanted = [k if 0 < k < vocab_size else vocab_size for k in top_k]
    limited = [k for k in wanted if k < vocab_size]
    best = probs.topk(max(limited), dim=-1).values
    rank = torch.tensor([min(k, best.shape[-1]) - 1 for k in wanted], device=probs.device)
    kth = best.gather(-1, rank[:, None])
    unlimited = torch.tensor([k == vocab_size for k in wanted], device=probs.device)[:, None]
    return probs.where(unlimited | (probs >= kth), 0)


def keep_top_p(probs: Tensor, top_p: Sequence[float]) -> Tensor:
    """Zero all but each row's nucleus, the fewest top tokens whose share reaches p (Holtzman et al. 2020).

    Of equally likely tokens at its border those of lowest id are kept: how sorting orders them depends on its kind, and
    so on the other rows. In half precision there are many.
    """
    share = _column(top_p, probs) * probs.sum(dim=-1, keepdim=True)
    best = probs.topk(min(NUCLEUS_CANDIDATES, probs.shape[-1]), dim=-1).values
    size, border = _nucleus_of(best, share)
    limited = torch.tensor([p < 1 for p in top_p], device=probs.device)[:, None]
    wide = (limited & (best.sum(dim=-1, keepdim=True) < share)).squeeze(-1)
    if bool(wide.any()):
        size[wide], border[wide] = _nucleus_of(probs[wide].sort(dim=-1, descending=True).values, share[wide])
    is_above, is_border = probs > border, probs == border
    room = size - is_above.sum(dim=-1, keepdim=True)
    is_nucleus = is_above | (is_border & (is_border.cumsum(dim=-1) <= room))
    return probs.where(~limited | is_nucleus, 0)


def _nucleus_of(best: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the best tokens (B, k) reach a share (B, 1), and the least probability among those."""
    before = best.cumsum(dim=-1) - best  # share of the tokens that rank above
    size = (before < share).sum(dim=-1, keepdim=True).clamp(min=1)
    return size, best.gather(-1, size - 1)


def top_logprobs(logits: Tensor, token_ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-softmax of raw logits (B, V) at given tokens (B,), and the k most likely tokens with theirs (B, k).

    All three come from one tensor, so a chosen token that is also a top token has the same bits in both places.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(-1, token_ids[:, None]).squeeze(-1)
    count = min(k, logits.shape[-1])
    best = logprobs.topk(min(max(k, TOP_CANDIDATES), logits.shape[-1]) if k else 0, dim=-1)
    return chosen, best.indices[:, :count], best.values[:, :count]


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1) from a counter-based generator: the splitmix64 finaliser (Steele et al. 2014) over the key."""
    state = 0
    for word in (seed, choice, position):
        state = _mix(state ^ (word & _MASK))
    return (state >> 11) * 2.0**-53


_MASK = (1 << 64) - 1


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@cache
def _bias_of_bytes(device: torch.device) -> Tensor:
    """For each byte, what its eight bits add to logits, lowest first (256, 8): nothing, or minus infinity."""
    is_set = (torch.arange(256)[:, None] >> torch.arange(8)) & 1 == 1
    return torch.zeros(256, 8).where(is_set, -torch.inf).to(device)


def _unless_empty(edited: Tensor, before: Tensor) -> Tensor:
    """Undo the edit of rows that it left nothing to choose (B, V)."""
    if edited is before:
        return before
    nothing_left = edited.isneginf().all(dim=-1, keepdim=True)
    return torch.where(nothing_left, before, edited)


def _ends_with(token_ids: Sequence[int], end: Sequence[int]) -> bool:
    return not end or list(token_ids[-len(end) :]) == list(end)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]  # (B, 1)


def _unzip(edits: list[tuple[int, int, float]], like: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    rows, token_ids, values = zip(*edits, strict=True)
    place = (torch.tensor(rows, device=like.device), torch.tensor(token_ids, device=like.device))
    return place, torch.tensor(values, dtype=like.dtype, device=like.device)
