"""Log-probabilities as clients see them: the legacy object of completions and the list of chat."""

from collections.abc import Sequence
from typing import Any

from model.tokenizer import Tokenizer
from service.host.messages import TokenLogprob
from service.web.output import TokenEntry

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


def token_text(tokenizer: Tokenizer, token_id: int, *, as_id: bool = False) -> str:
    """Return a string for one token. Distinct tokens get distinct strings, also those that are no whole characters."""
    if as_id:
        return f"token_id:{token_id}"
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def legacy_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenEntry], k: int, *, as_ids: bool) -> dict[str, Any]:
    """Return four parallel arrays; the first token of a prompt has nulls."""
    return {
        "tokens": [token_text(tokenizer, entry.token_id, as_id=as_ids) for entry in entries],
        "token_logprobs": [None if entry.logprob is None else _finite(entry.logprob.logprob) for entry in entries],
        "top_logprobs": [_top_by_text(tokenizer, entry, k, as_ids=as_ids) for entry in entries],
        "text_offset": [entry.start for entry in entries],
    }


def _top_by_text(tokenizer: Tokenizer, entry: TokenEntry, k: int, *, as_ids: bool) -> dict[str, float] | None:
    if entry.logprob is None:
        return None
    chosen = {entry.token_id: entry.logprob.logprob}
    top = dict(entry.logprob.top[:k]) | chosen
    return {token_text(tokenizer, token_id, as_id=as_ids): _finite(value) for token_id, value in top.items()}


def chat_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenEntry], k: int, *, as_ids: bool) -> dict[str, Any]:
    """Return one object for each token that is part of the text, so that their bytes join to its UTF-8."""

    def entry_of(token_id: int, logprob: float, opens_text: bool) -> dict[str, Any]:
        return {
            "token": token_text(tokenizer, token_id, as_id=as_ids),
            "logprob": _finite(logprob),
            "bytes": list(tokenizer.token_bytes(token_id, opens_text=opens_text)),
        }

    content = [
        entry_of(entry.token_id, entry.logprob.logprob, entry.opens_text)
        | {"top_logprobs": [entry_of(token_id, value, entry.opens_text) for token_id, value in entry.logprob.top[:k]]}
        for entry in entries
        if entry.is_shown and entry.logprob is not None
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(
    tokenizer: Tokenizer, scored: Sequence[tuple[int, TokenLogprob | None]], k: int, *, as_ids: bool
) -> list[dict[str, Any] | None]:
    """Return for each prompt token its own score and those of the best, by token id, as vLLM has it.

    The rank of a token that is not among the best is not known.
    """

    def entries_of(token_id: int, score: TokenLogprob) -> dict[str, Any]:
        ranks = {best_id: rank for rank, (best_id, _) in enumerate(score.top, start=1)}
        logprobs = {token_id: score.logprob} | dict(score.top[:k])
        return {
            str(id_): {
                "logprob": _finite(logprob),
                "rank": ranks.get(id_),
                "decoded_token": token_text(tokenizer, id_, as_id=as_ids),
            }
            for id_, logprob in logprobs.items()
        }

    return [None if score is None else entries_of(token_id, score) for token_id, score in scored]


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
