"""Log-probabilities of continuations after contexts: what multiple choice, cloze tests and the harness ask for.

How text is cut into ids follows lm-evaluation-harness (`TemplateLM._encode_pair`), so that figures compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.cross_entropy import rows_per_chunk
from training.data.errors import DataError


@dataclass(frozen=True, slots=True)
class Pair:
    """Ids of a continuation, and those before it: at least one."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]

    def fits(self, model: GPT) -> bool:
        """Say whether the continuation can be scored, if need be with less of its context."""
        return len(self.continuation_ids) <= model.config.block_size


@dataclass(frozen=True, slots=True)
class Score:
    """What a model thinks of a continuation."""

    log_prob: float
    """Sum over its tokens, in nats."""
    is_greedy: bool
    """Whether each of its tokens is the most likely one."""
    is_cut: bool
    """Whether the beginning of the context was cut off, because all of it does not fit the model."""


def encode_text(text: str, tokenizer: Tokenizer, *, parse_special: bool = False) -> list[int]:
    """Return the ids of a text behind what the tokenizer's model expects before one, which is never doubled."""
    ids = tokenizer.encode(text, parse_special=parse_special)
    bos_ids = list(tokenizer.bos_ids)
    return ids if bos_ids and ids[: len(bos_ids)] == bos_ids else bos_ids + ids


def opening_id(tokenizer: Tokenizer) -> int:
    """Return the id that stands before a text which has nothing else before it."""
    named = tokenizer.named_tokens.get("bos_token", "")
    if tokenizer.bos_ids:
        return tokenizer.bos_ids[0]
    return tokenizer.special_tokens.get(named, tokenizer.eos_id)


def encode_pair(context: str, continuation: str, tokenizer: Tokenizer, *, parse_special: bool = False) -> Pair:
    """Cut context and continuation into ids where the ids of both together and of the context part.

    White space at the end of the context belongs to the continuation, as the vocabulary has it.

    Raises:
        DataError: the continuation is empty.
    """
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    if not continuation:
        raise DataError("there is an empty continuation among the texts to score")
    if not bare:
        return Pair((opening_id(tokenizer),), tuple(tokenizer.encode(continuation, parse_special=parse_special)))
    context_ids = encode_text(bare, tokenizer, parse_special=parse_special)
    whole = encode_text(bare + continuation, tokenizer, parse_special=parse_special)
    # Where the border vanishes inside one token, nothing would be left to score.
    rest = whole[len(context_ids) :] or tokenizer.encode(continuation, parse_special=parse_special)
    return Pair(tuple(context_ids), tuple(rest))


@dataclass(slots=True)
class _Row:
    """One input of the model, and the continuations that are predicted at its end."""

    ids: tuple[int, ...]
    asked: list[int] = field(default_factory=list)  # which pairs


@torch.inference_mode()
def score_pairs(
    model: GPT, pairs: Sequence[Pair], *, batch_size: int = 32, title: str = "score", quiet: bool = False
) -> list[Score]:
    """Score continuations, longest first; those that share all of their input share its computation.

    A context that does not fit loses its beginning.

    Raises:
        DataError: a continuation alone is longer than the model's context.
    """
    model.eval()
    block_size = model.config.block_size
    rows: dict[tuple[int, ...], _Row] = {}
    for place, pair in enumerate(pairs):
        if not pair.fits(model):
            raise DataError(
                f"a continuation has {len(pair.continuation_ids)} tokens, more than the model's context of {block_size}"
            )
        ids = (pair.context_ids + pair.continuation_ids)[-block_size - 1 : -1]
        rows.setdefault(ids, _Row(ids)).asked.append(place)
    order = sorted(rows.values(), key=lambda row: -len(row.ids))
    scores: list[Score | None] = [None] * len(pairs)
    for start in tqdm(range(0, len(order), batch_size), desc=title, unit="batch", leave=False, disable=quiet or None):
        batch = order[start : start + batch_size]
        for place, log_prob, is_greedy in _score_batch(model, batch, pairs):
            length = len(pairs[place].context_ids) + len(pairs[place].continuation_ids)
            scores[place] = Score(log_prob, is_greedy, length > block_size + 1)
    return [score for score in scores if score is not None]


def _score_batch(model: GPT, batch: Sequence[_Row], pairs: Sequence[Pair]) -> list[tuple[int, float, bool]]:
    device = model.wte.weight.device
    idx = torch.zeros(len(batch), len(batch[0].ids), dtype=torch.int64)  # the longest comes first; right padding
    for number, row in enumerate(batch):
        idx[number, : len(row.ids)] = torch.tensor(row.ids)
    asked = [(number, place) for number, row in enumerate(batch) for place in row.asked]
    targets: list[int] = []
    rows: list[int] = []
    places: list[int] = []
    for number, place in asked:
        wanted = pairs[place].continuation_ids
        targets += wanted
        rows += [number] * len(wanted)
        places += range(len(batch[number].ids) - len(wanted), len(batch[number].ids))
    hidden = model(idx.to(device))[rows, places]  # (N, C)
    log_probs, is_best = _score_targets(model, hidden, torch.tensor(targets, device=device))
    found, end = [], 0
    for _, place in asked:
        start, end = end, end + len(pairs[place].continuation_ids)
        found.append((place, sum(log_probs[start:end]), all(is_best[start:end])))
    return found


def _score_targets(model: GPT, hidden: Tensor, targets: Tensor) -> tuple[list[float], list[bool]]:
    """Return the log-probability of each target (N,), and whether it is the most likely token."""
    log_probs: list[float] = []
    is_best: list[bool] = []
    rows = rows_per_chunk(hidden, model.lm_head.weight)
    for start in range(0, len(hidden), rows):
        logits = model.logits(hidden[start : start + rows]).float()
        wanted = targets[start : start + rows]
        found = logits.gather(-1, wanted[:, None])[:, 0] - logits.logsumexp(-1)
        log_probs += found.double().tolist()
        is_best += (logits.argmax(-1) == wanted).tolist()
    return log_probs, is_best
