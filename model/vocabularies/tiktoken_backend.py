"""Run byte-level BPE with tiktoken, the fastest encoder there is for it.

It knows no files and no decoding; added tokens are cut out of the text before tiktoken sees the rest.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import tiktoken

from model.vocabularies.byte_level import ByteLevelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SPACE_RUN = 50_000
"""Longer runs of whitespace are cut before tiktoken sees them: a million overflow the stack of its regex engine."""

_LONG_SPACE_RUN = re.compile(rf"(?<!\s)\s{{{MAX_SPACE_RUN},}}")


class TiktokenBackend:
    """Text to ids. Safe to share between threads."""

    def __init__(
        self, spec: ByteLevelSpec, special_tokens: Mapping[str, int], plain_added_tokens: Mapping[str, int]
    ) -> None:
        self._spec = spec
        ranks = spec.ids
        self._id_of_rank: tuple[int, ...] | None = None
        if not _grows([id_ for token, id_ in spec.ids.items() if len(token) > 1]):
            ranks = {token: rank for rank, token in enumerate(spec.ids)}
            self._id_of_rank = tuple(spec.ids.values())
        self._encoding = tiktoken.Encoding(
            "tokenizer.json", pat_str=spec.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._special = special_tokens
        self._added = {**plain_added_tokens, **special_tokens}
        self._split_plain = _alternatives(plain_added_tokens)
        self._split_all = _alternatives(self._added)

    def encode(self, text: str, *, parse_special: bool = False, opens_text: bool = True) -> list[int]:
        """Return the ids of `text`; text of special tokens becomes control tokens only with `parse_special`."""
        del opens_text  # byte-level BPE writes a text's beginning like any other place
        pattern = self._split_all if parse_special else self._split_plain
        if pattern is None:
            return self._encode_ordinary(text) if text else []
        ids: list[int] = []
        for piece in filter(None, pattern.split(text)):
            if piece in self._added and (parse_special or piece not in self._special):
                ids.append(self._added[piece])
            else:
                ids.extend(self._encode_ordinary(piece))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> "list[NDArray[np.uint32]]":
        """Encode plain texts. Most of the time is spent without the interpreter's lock."""
        import numpy as np

        return [np.array(self.encode(text), np.uint32) for text in texts]

    def _encode_ordinary(self, text: str) -> list[int]:
        if self._spec.normalizes_nfc:
            text = unicodedata.normalize("NFC", text)
        if self._spec.adds_prefix_space and not text.startswith(" "):
            text = " " + text
        if len(text) < MAX_SPACE_RUN:
            ranks = self._encoding.encode_ordinary(text)
        else:
            ranks = [rank for part in _cut_space_runs(text) for rank in self._encoding.encode_ordinary(part)]
        return ranks if self._id_of_rank is None else [self._id_of_rank[rank] for rank in ranks]


def _grows(ids: Sequence[int]) -> bool:
    """Whether ids can stand for the ranks: nothing merges into a single byte, so those may have any."""
    return all(id_ < following for id_, following in pairwise(ids))


def _alternatives(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Compile a splitter that keeps what it splits at; of two tokens at one place the longer wins."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None


def _cut_space_runs(text: str) -> Iterator[str]:
    start = 0
    for run in _LONG_SPACE_RUN.finditer(text):
        for cut in range(run.start() + MAX_SPACE_RUN, run.end(), MAX_SPACE_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]
