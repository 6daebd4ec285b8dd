"""A byte-level BPE vocabulary that leaves quoted words spelled out: every merge grows a word from its front.

Tokens are the most frequent beginnings of words that follow a space or start with a capital letter. A word in quotes
is therefore a row of letters, which a small model can copy, spell and inflect, while running text stays short. The
result is a plain `tokenizer.json` with GPT-2's split pattern; it does not know the texts' meaning.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable

from model.chat import END_OF_TEXT, PAD
from model.tokenizer import Tokenizer
from training.vocabulary import train_bpe

_PIECE = re.compile(r" [A-Za-z]+| [!-/:-@]+|[A-Z][a-z]+")


def train_spelled_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn the word beginnings that shorten `texts` the most.

    A beginning saves one token wherever it occurs, so the most frequent ones are the best, and since none is more
    frequent than its own beginning, each one's parts come before it.
    """
    blank = train_bpe([], 0 + 256 + 6)
    document = json.loads(blank.files()["tokenizer.json"])
    vocab: dict[str, int] = document["model"]["vocab"]
    chosen = _beginnings(texts)[: vocab_size - blank.vocab_size]
    # Beginnings with a space merge first: otherwise "The" inside " The" would merge before its space could.
    for beginning in sorted(chosen, key=lambda text: not text.startswith(" ")):
        token = beginning.replace(" ", SPACE)
        vocab[token] = len(vocab)
        document["model"]["merges"].append([token[:-1], token[-1]])
    return Tokenizer.from_json(json.dumps(document, indent=2) + "\n", eos_token=END_OF_TEXT, pad_token=PAD)


SPACE = "\u0120"
"""How a byte-level vocabulary writes a space."""


def _beginnings(texts: Iterable[str]) -> list[str]:
    """Return beginnings of two characters and more, most frequent first, shorter ones first among equals."""
    pieces = Counter(itertools.chain.from_iterable(_PIECE.findall(text) for text in texts))
    counts: Counter[str] = Counter()
    for piece, count in pieces.items():
        for end in range(2, len(piece) + 1):
            counts[piece[:end]] += count
    return sorted(counts, key=lambda beginning: (-counts[beginning], len(beginning), beginning))
