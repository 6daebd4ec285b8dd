"""Texts in memory to token ids, and what can be said of ids with the tokenizer at hand."""

import hashlib
from collections.abc import Iterable

import numpy as np

from model.tokenizer import Tokenizer
from training.data.ids import Ids
from training.data.shards import id_dtype

_CHUNK = 1 << 20


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Ids:
    """Encode documents one after another, each followed by the end token, as they lie in shards."""
    dtype = id_dtype(tokenizer.vocab_size)
    ids: Ids = np.concatenate(
        [np.array([*tokenizer.bos_ids, *tokenizer.encode(text), tokenizer.eos_id], dtype) for text in documents]
    )
    return ids


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return a digest of a tokenizer's vocabulary and rules."""
    return hashlib.sha256(tokenizer.files()["tokenizer.json"]).hexdigest()


def text_bytes(ids: Ids, tokenizer: Tokenizer) -> int:
    """Return how many bytes of text some ids stand for; special tokens stand for none."""
    sizes = np.array([len(tokenizer.token_bytes(id_)) for id_ in range(tokenizer.vocab_size)])
    sizes[list(tokenizer.special_ids)] = 0
    return sum(int(sizes[ids[i : i + _CHUNK]].sum()) for i in range(0, len(ids), _CHUNK))
