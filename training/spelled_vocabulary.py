"""A byte-level vocabulary of whole words and single letters: frequent words are one token, all others are spelled out.

A word that is no token, and every word in quotes, is a row of letters, which a small model can copy, spell and
inflect; what it is asked to do stands in whole words. The result is a plain `tokenizer.json` with GPT-2's split
pattern; it does not know the texts' meaning.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Container, Iterable

from model.chat import END_OF_TEXT, PAD
from model.tokenizer import Tokenizer
from training.vocabulary import train_bpe

_PIECE = re.compile(r" [A-Za-z]+| [!-/:-@]+|[A-Z][a-z]+")


def train_spelled_bpe(texts: Iterable[str], vocab_size: int, *, spelled: Container[str] = ()) -> Tokenizer:
    """Take the most frequent words of `texts` for tokens, with the space before them, or without at a text's start.

    Args:
        spelled: words in lower case that are to be no tokens, however frequent.
    """
    blank = train_bpe([], 256 + 6)
    document = json.loads(blank.files()["tokenizer.json"])
    vocab: dict[str, int] = document["model"]["vocab"]
    chosen = _frequent_words(texts, spelled)[: vocab_size - blank.vocab_size]
    vocab |= {word.replace(" ", SPACE): len(vocab) + i for i, word in enumerate(chosen)}
    document["model"]["ignore_merges"] = True  # a word that is a token is that token
    document["model"]["merges"] = [split for word in chosen for split in _splits(word.replace(" ", SPACE), vocab)]
    return Tokenizer.from_json(json.dumps(document, indent=2) + "\n", eos_token=END_OF_TEXT, pad_token=PAD)


SPACE = "\u0120"
"""How a byte-level vocabulary writes a space."""


def _frequent_words(texts: Iterable[str], spelled: Container[str]) -> list[str]:
    """Return words, most frequent first; none of one letter, or longer words would begin with it."""
    counts = Counter(itertools.chain.from_iterable(_PIECE.findall(text) for text in texts))
    words = [
        word for word in counts if (len(word) > 2 or not word[1].isalpha()) and word.strip().lower() not in spelled
    ]
    return sorted(words, key=lambda word: (-counts[word], word))


def _splits(word: str, vocab: dict[str, int]) -> list[list[str]]:
    """Return every way to make a token from two others: readers of such files take all of them for merges."""
    cuts = ([word[:cut], word[cut:]] for cut in range(1, len(word)))
    return [[left, right] for left, right in cuts if left in vocab and right in vocab]
