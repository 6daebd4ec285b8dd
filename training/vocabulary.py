"""Train a byte-level BPE vocabulary with the `tokenizers` library and hand it over as a `model.tokenizer.Tokenizer`.

It keeps to split patterns of published models, so that other programs recognise the result. The same texts give the
same file, however many threads count them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as TrainableTokenizer

from model.chat import END_OF_TEXT, PAD, SPECIAL_TOKENS
from model.tokenizer import Tokenizer
from model.vocabularies.openai import CL100K_PATTERN

Split = Literal["gpt2", "llama3", "single-digits"]
"""How text is cut into pieces that no token crosses.

`gpt2`: words with the space before them, numbers, punctuation, white space. `llama3`: as GPT-4 and Llama 3, numbers of
at most three digits. `single-digits`: as SmolLM, GPT-2's with every digit alone, which arithmetic is easier with.
"""

PIECE_CHARS = 1_000_000
"""Longer texts are counted in pieces of about this length, so that the library's copies stay small."""

_CUT = re.compile(r"(?<=\S) ")


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    split: Split = "gpt2",
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    min_frequency: int = 2,
    show_progress: bool = False,
) -> Tokenizer:
    """Learn the most frequent byte pairs of `texts`.

    Args:
        texts: Read once, as it is needed; may be a generator over more than fits into memory.
        vocab_size: Ids in total: special tokens first, then the 256 bytes, then merges. It may stay below this where
            the texts have too few pairs that occur `min_frequency` times.
        split: Where tokens end at the latest.
        special_tokens: Must hold `<|endoftext|>`, the end of a text, and `<|pad|>`.
        min_frequency: How often a pair must occur to become a token.
        show_progress: Draw bars on the terminal.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens, or one of those is missing or twice.
    """
    missing = {END_OF_TEXT, PAD} - set(special_tokens)
    if missing or len(set(special_tokens)) < len(special_tokens):
        raise ValueError(f"special_tokens: each once, {END_OF_TEXT} and {PAD} among them, not {list(special_tokens)}")
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}: 256 bytes and {len(special_tokens)} special tokens")
    tokenizer = TrainableTokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
    return Tokenizer.from_json(tokenizer.to_str(pretty=True) + "\n", eos_token=END_OF_TEXT, pad_token=PAD)


def _pre_tokenizer(split: Split) -> Any:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split != "llama3")
    if split == "gpt2":
        return byte_level
    digits = pre_tokenizers.Digits(individual_digits=True)
    first = digits if split == "single-digits" else pre_tokenizers.Split(Regex(CL100K_PATTERN), "isolated")
    return pre_tokenizers.Sequence([first, byte_level])


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text before spaces that follow a word, where every split pattern begins a new piece anyway."""
    start = 0
    while cut := _CUT.search(text, start + PIECE_CHARS):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
