"""Read byte-level BPE out of a `tokenizer.json` as what a tiktoken `Encoding` needs, and say what it cannot express.

The two sides merge by different rules. The file lists pairs, and a pair merges only if it is listed; tiktoken merges
any two neighbours whose concatenation is a token, lowest rank first. `_order` accepts a vocabulary only where both
rules must give the same tokens. Split patterns become one regular expression, or are not accepted either.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from model.vocabularies.tokenizer_json import NotByteLevel, TokenizerError, TokenizerFile, byte_alphabet

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts text into pieces that no token crosses (openai/gpt-2, src/encoder.py)."""

GPT2_SINGLE_DIGITS_PATTERN = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
"""The same after each digit has been set apart, as in SmolLM and StarCoder: a digit ends a piece too.

Of 1.1 million characters, 13 digits are treated otherwise than in the library, whose Unicode is newer.
"""

WHOLE_TEXT = r"[\s\S]+"

Pair = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class ByteLevelSpec:
    """A byte-level BPE vocabulary as tiktoken wants it."""

    ids: dict[bytes, int]
    """Tokens that text can become, in order of rank: the 256 single bytes first, then the merges in their order."""
    pattern: str
    normalizes_nfc: bool
    adds_prefix_space: bool


def read_byte_level(file: TokenizerFile) -> ByteLevelSpec:
    """Read what tiktoken can run.

    Raises:
        NotByteLevel: naming the entry that it cannot.
        TokenizerError: the vocabulary contradicts itself.
    """
    root, model = file.root, file.root["model"]
    nfc = _normalizes_nfc(root.get("normalizer"))
    for token in root.get("added_tokens") or []:
        _check_added_token(token, nfc)
    _check_model(model)
    pattern, adds_prefix_space = _read_pre_tokenizer(root.get("pre_tokenizer"))
    ids = {_to_bytes(text): id_ for text, id_ in file.vocab.items()}
    order = _order(ids, list(_read_merges(model["merges"])), bool(model.get("ignore_merges")))
    return ByteLevelSpec({token: ids[token] for token in order}, pattern, nfc, adds_prefix_space)


def _check_model(model: Mapping[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise NotByteLevel(f"model type {model['type']!r}")
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise NotByteLevel(f"model.{option} {model[option]!r}")


def _check_added_token(token: Mapping[str, Any], nfc: bool) -> None:
    for option in ("lstrip", "rstrip", "single_word"):
        if token.get(option):
            raise NotByteLevel(f"added token {token['content']!r} with {option!r}")
    if nfc and token.get("normalized"):
        raise NotByteLevel(f"added token {token['content']!r} with 'normalized'")


def _normalizes_nfc(normalizer: Mapping[str, Any] | None) -> bool:
    if normalizer is None:
        return False
    if normalizer["type"] == "Sequence":
        steps = [_normalizes_nfc(step) for step in normalizer["normalizers"]]  # all of them: each may be unsupported
        return any(steps)
    if normalizer["type"] != "NFC":
        raise NotByteLevel(f"normalizer {normalizer['type']!r}")
    return True


def _read_pre_tokenizer(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, bool]:
    """Return the split pattern, and whether a space goes before a text that does not start with one."""
    if pre_tokenizer is None:
        raise NotByteLevel("pre_tokenizer None")
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    splits, adds_space = bool(steps[-1].get("use_regex", True)), bool(steps[-1].get("add_prefix_space", True))
    match kinds:
        case ["ByteLevel"]:
            return (GPT2_PATTERN if splits else WHOLE_TEXT), adds_space
        case ["Digits", "ByteLevel"] if steps[0].get("individual_digits") and splits and not adds_space:
            return GPT2_SINGLE_DIGITS_PATTERN, False
        case ["Split", "ByteLevel"] if not splits and not adds_space:
            return _read_split(steps[0]), False
        case _:
            raise NotByteLevel(f"pre_tokenizer {' + '.join(kinds)!r}")


def _read_split(split: Mapping[str, Any]) -> str:
    pattern = split["pattern"].get("Regex") or re.escape(split["pattern"]["String"])
    match split["behavior"], split["invert"]:
        case "Isolated", _:  # matches are pieces, and so is what lies between; tiktoken drops what lies between
            return f"(?:{pattern})|(?:(?!{pattern})[\\s\\S])+"
        case "Removed", True:
            return str(pattern)
        case behavior, invert:
            raise NotByteLevel(f"pre_tokenizer Split with {behavior}, invert {invert}")


_BYTE_OF_CHARACTER = {character: byte for byte, character in byte_alphabet().items()}


def _to_bytes(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        raise NotByteLevel(f"token {token!r}, which is not written in the byte-level alphabet") from None


def _read_merges(merges: list[str | list[str]]) -> Iterator[Pair]:
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield _to_bytes(left), _to_bytes(right)


def _order(ids: Mapping[bytes, int], merges: list[Pair], ignores_merges: bool) -> dict[bytes, None]:
    """Order the vocabulary as tiktoken must see it."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ids]
    if missing:
        raise NotByteLevel(f"no token for byte {missing[0]:#04x}")
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
            raise NotByteLevel(f"token {token!r}, which the merges do not reach")
    return order


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
