"""OpenAI's published vocabularies, fetched and cached by tiktoken, written as a `tokenizer.json` that others read.

tiktoken ranks whole tokens where the file lists pairs: the last merge of each token is found again by merging its
bytes with the tokens of lower rank. It does not know text; `model.tokenizer` encodes and decodes.
"""

import hashlib
import json
import os
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiktoken

from model.vocabularies.byte_level import GPT2_PATTERN
from model.vocabularies.tokenizer_json import TokenizerError, byte_alphabet

END_OF_TEXT = "<|endoftext|>"

CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How GPT-4 cuts text, and Llama 3 after it (openai/tiktoken, tiktoken_ext/openai_public.py)."""

O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How GPT-4o cuts text (the same source)."""

CONNECT_TIMEOUT_S = 10

_BASE = "https://openaipublic.blob.core.windows.net"


@dataclass(frozen=True, slots=True)
class _Published:
    sha256: Mapping[str, str]
    """Address below `_BASE` to digest, as tiktoken pins them (tiktoken_ext/openai_public.py)."""
    pattern: str


_PUBLISHED = {
    "gpt2": _Published(
        {
            "gpt-2/encodings/main/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            "gpt-2/encodings/main/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        },
        GPT2_PATTERN,
    ),
    "r50k_base": _Published(
        {"encodings/r50k_base.tiktoken": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"},
        GPT2_PATTERN,
    ),
    "p50k_base": _Published(
        {"encodings/p50k_base.tiktoken": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069"},
        GPT2_PATTERN,
    ),
    "cl100k_base": _Published(
        {"encodings/cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"},
        CL100K_PATTERN,
    ),
    "o200k_base": _Published(
        {"encodings/o200k_base.tiktoken": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"},
        O200K_PATTERN,
    ),
}

TIKTOKEN_NAMES = tuple(_PUBLISHED)


def tiktoken_json(name: str) -> str:
    """Return the `tokenizer.json` of one of `TIKTOKEN_NAMES`.

    Raises:
        TokenizerError: the name is unknown, or its files are neither cached nor to be had.
    """
    if name not in _PUBLISHED:
        raise TokenizerError(f"{name}: not a vocabulary of tiktoken; known are {', '.join(TIKTOKEN_NAMES)}")
    _provide(name)
    try:
        encoding = tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:  # with its cache turned off, tiktoken fetches each time
        raise TokenizerError(f"{name}: tiktoken cannot load it ({error})") from error
    return json.dumps(_as_json(encoding, _PUBLISHED[name].pattern), ensure_ascii=False, indent=2) + "\n"


def _provide(name: str) -> None:
    """See to it that tiktoken finds its files, since it would try the network for minutes and drop a broken file."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":  # tiktoken's way to say: no cache
        return
    cache = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    for path, sha256 in _PUBLISHED[name].sha256.items():
        address = f"{_BASE}/{path}"
        file = cache / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
        if not file.exists():
            _store(file, _fetch(name, address, file))
        if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise TokenizerError(f"{file}: broken, its SHA-256 is not that of {address}; delete it or put a good copy")


def _fetch(name: str, address: str, file: Path) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=CONNECT_TIMEOUT_S) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException) as error:
        raise TokenizerError(
            f"{name}: its vocabulary is not cached and cannot be fetched ({error}); download {address} elsewhere, "
            f"save it as {file.name} in a folder and set TIKTOKEN_CACHE_DIR to that folder (now {file.parent})"
        ) from error


def _store(file: Path, content: bytes) -> None:
    """Write aside and rename, so that another process never sees half a file."""
    aside = file.with_name(f"{file.name}.{uuid.uuid4()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.rename(file)
    except OSError as error:
        raise TokenizerError(f"{file.parent}: cannot keep the vocabulary there ({error.strerror})") from error


def _as_json(encoding: tiktoken.Encoding, pattern: str) -> dict[str, Any]:
    special = {token: encoding.encode_single_token(token) for token in sorted(encoding.special_tokens_set)}
    ranks = _ranks(encoding)
    alphabet = byte_alphabet()
    text = {token: "".join(alphabet[byte] for byte in token) for token in ranks}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id_, token) for token, id_ in sorted(special.items(), key=lambda item: item[1])],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(pattern, byte_level),
        "post_processor": byte_level | {"trim_offsets": False, "use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            # With the special tokens among them, since readers number added tokens without gaps.
            "vocab": {text[token]: rank for token, rank in ranks.items()} | special,
            "merges": [[text[left], text[right]] for left, right in _merges(ranks)],
        },
    }


def _ranks(encoding: tiktoken.Encoding) -> dict[bytes, int]:
    """Return the tokens that text can become, lowest rank first."""
    ranks = {token: encoding.encode_single_token(token) for token in encoding.token_byte_values()}
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def _added_token(id_: int, content: str) -> dict[str, Any]:
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": content, **options, "special": True}


def _pre_tokenizer(pattern: str, byte_level: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's pattern has a name of its own in the format; write it so, since other programs look for that."""
    if pattern == GPT2_PATTERN:
        return {**byte_level, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pair that makes each token of several bytes; `ranks` holds the tokens by rank."""
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = _merge_below(token, ranks, rank)
            yield left, right


def _merge_below(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """Merge the bytes of a token as tiktoken would if it knew only what ranks below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        lowest = min(found)
        if lowest >= limit:
            raise TokenizerError(f"{token!r} of rank {limit} is not made of two tokens of lower rank")
        at = found.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
