"""Read a public `tokenizer.json` into what a tiktoken `Encoding` needs, and refuse what it cannot express.

The two sides merge by different rules. The file lists pairs, and a pair merges only if it is listed; tiktoken merges
any two neighbours whose concatenation is a token, lowest rank first. `_ranks` accepts a vocabulary only where both
rules must give the same tokens. It does not know text; `model.tokenizer` encodes and decodes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts text into pieces that no token crosses (openai/gpt-2, src/encoder.py)."""

WHOLE_TEXT = r"[\s\S]+"

Pair = tuple[bytes, bytes]


class TokenizerError(ValueError):
    """The tokenizer files are broken, or ask for something that we do not implement."""


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """A byte-level BPE vocabulary as tiktoken wants it, and what surrounds it."""

    ranks: dict[bytes, int]
    """Token bytes to merge rank: the 256 single bytes first, then the merges in their order."""
    id_of_rank: tuple[int, ...]
    pattern: str
    token_bytes: dict[int, bytes]
    """Every id, the added tokens included."""
    special_tokens: dict[str, int]
    """Added tokens marked special: control tokens."""
    plain_added_tokens: dict[str, int]
    """Added tokens not marked special: always recognised in text, but text they stay."""
    normalizes_nfc: bool
    adds_prefix_space: bool


def read_tokenizer_json(source: str) -> TokenizerSpec:
    """Parse the text of a `tokenizer.json`.

    Raises:
        TokenizerError: naming the entry that is broken or unsupported.
    """
    try:
        root = json.loads(source)
        return _read_root(root)
    except TokenizerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"tokenizer.json: malformed ({type(error).__name__}: {error})") from error


def byte_alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (openai/gpt-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _read_root(root: Mapping[str, Any]) -> TokenizerSpec:
    model = root["model"]
    added = root.get("added_tokens") or []
    nfc = _normalizes_nfc(root.get("normalizer"))
    for token in added:
        _check_added_token(token, nfc)
    _check_model(model)
    decoder = root.get("decoder") or {"type": "ByteLevel"}
    if decoder["type"] != "ByteLevel":
        raise _unsupported("decoder", decoder["type"])
    pattern, adds_prefix_space = _read_pre_tokenizer(root["pre_tokenizer"])

    added_text = {token["content"]: token["id"] for token in added}
    ids = {_to_bytes(text): id_ for text, id_ in model["vocab"].items() if text not in added_text}
    ranks = _ranks(ids, list(_read_merges(model["merges"])), bool(model.get("ignore_merges")))
    return TokenizerSpec(
        ranks=ranks,
        id_of_rank=tuple(ids[token] for token in ranks),
        pattern=pattern,
        token_bytes={id_: token for token, id_ in ids.items()}
        | {id_: text.encode() for text, id_ in added_text.items()},
        special_tokens={token["content"]: token["id"] for token in added if token.get("special")},
        plain_added_tokens={token["content"]: token["id"] for token in added if not token.get("special")},
        normalizes_nfc=nfc,
        adds_prefix_space=adds_prefix_space,
    )


def _unsupported(entry: str, value: object) -> TokenizerError:
    return TokenizerError(f"tokenizer.json: {entry} {value!r} is not supported; only byte-level BPE can be loaded")


def _check_model(model: Mapping[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise _unsupported("model type", model["type"])
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise _unsupported(f"model.{option}", model[option])


def _check_added_token(token: Mapping[str, Any], nfc: bool) -> None:
    for option in ("lstrip", "rstrip", "single_word"):
        if token.get(option):
            raise _unsupported(f"added token {token['content']!r} with", option)
    if nfc and token.get("normalized"):
        raise _unsupported(f"added token {token['content']!r} with", "normalized")
    if not token["content"]:
        raise _unsupported("added token", "")


def _normalizes_nfc(normalizer: Mapping[str, Any] | None) -> bool:
    if normalizer is None:
        return False
    if normalizer["type"] == "Sequence":
        steps = [_normalizes_nfc(step) for step in normalizer["normalizers"]]  # all of them: each may be unsupported
        return any(steps)
    if normalizer["type"] != "NFC":
        raise _unsupported("normalizer", normalizer["type"])
    return True


def _read_pre_tokenizer(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, bool]:
    """Return the split pattern, and whether a space goes before a text that does not start with one."""
    if pre_tokenizer is None:
        raise _unsupported("pre_tokenizer", None)
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        uses_regex = steps[0].get("use_regex", True)
        return (GPT2_PATTERN if uses_regex else WHOLE_TEXT), bool(steps[0].get("add_prefix_space"))
    if kinds == ["Split", "ByteLevel"]:
        for option in ("use_regex", "add_prefix_space"):
            if steps[1].get(option, True):
                raise _unsupported("pre_tokenizer Split followed by ByteLevel with", option)
        return _read_split(steps[0]), False
    raise _unsupported("pre_tokenizer", " + ".join(kinds))


def _read_split(split: Mapping[str, Any]) -> str:
    if "Regex" not in split["pattern"]:
        raise _unsupported("pre_tokenizer Split pattern", split["pattern"])
    pattern = str(split["pattern"]["Regex"])
    match split["behavior"], split["invert"]:
        case "Isolated", False:  # matches are pieces, and so is what lies between; tiktoken drops what lies between
            return f"(?:{pattern})|(?:(?!{pattern})[\\s\\S])+"
        case "Removed", True:
            return pattern
        case behavior, invert:
            raise _unsupported("pre_tokenizer Split", f"{behavior}, invert {invert}")


_BYTE_OF_CHARACTER = {character: byte for byte, character in byte_alphabet().items()}


def _to_bytes(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        raise TokenizerError(f"tokenizer.json: token {token!r} is not written in the byte-level alphabet") from None


def _read_merges(merges: list[str | list[str]]) -> Iterator[Pair]:
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield _to_bytes(left), _to_bytes(right)


def _ranks(ids: Mapping[bytes, int], merges: list[Pair], ignores_merges: bool) -> dict[bytes, int]:
    """Order the vocabulary as tiktoken must see it; insertion order is rank order."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ids]
    if missing:
        raise TokenizerError(f"tokenizer.json: the vocabulary has no token for byte {missing[0]:#04x}")
    rank_of_pair = {pair: rank for rank, pair in enumerate(merges)}
    order = dict.fromkeys([bytes([byte]) for byte in range(256)] + [left + right for left, right in merges])
    if ignores_merges:  # a piece that is a token stays whole, merged or not: every token can be the answer
        order |= dict.fromkeys(ids)
    for token in order:
        if token not in ids:
            raise TokenizerError(f"tokenizer.json: merges make {token!r}, which is not in the vocabulary")
        if _merge(token, rank_of_pair) == [token]:
            continue
        if not ignores_merges or any(split not in rank_of_pair for split in _splits(token, ids)):
            raise TokenizerError(f"tokenizer.json: the merges do not reach token {token!r}, so tiktoken would differ")
    return {token: rank for rank, token in enumerate(order)}


def _splits(token: bytes, ids: Mapping[bytes, int]) -> Iterator[Pair]:
    for cut in range(1, len(token)):
        if token[:cut] in ids and token[cut:] in ids:
            yield token[:cut], token[cut:]


def _merge(piece: bytes, rank_of_pair: Mapping[Pair, int]) -> list[bytes]:
    """Apply the listed merges to one piece, lowest rank first: the plain definition of BPE."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    unlisted = len(rank_of_pair)
    while len(parts) > 1:
        ranks = [rank_of_pair.get(pair, unlisted) for pair in pairwise(parts)]
        lowest = min(ranks)
        if lowest == unlisted:
            break
        at = ranks.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
