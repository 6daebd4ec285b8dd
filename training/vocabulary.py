"""Train a byte-level BPE vocabulary with the `tokenizers` library and hand it over as a `model.tokenizer.Tokenizer`.

It keeps GPT-2's stock split pattern, so that other programs recognise the result.
"""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as TrainableTokenizer

from model.chat import END_OF_TEXT, PAD, SPECIAL_TOKENS
from model.tokenizer import Tokenizer


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    min_frequency: int = 2,
    show_progress: bool = False,
) -> Tokenizer:
    """Learn the most frequent byte pairs of `texts`.

    Args:
        texts: Read once; may be a generator.
        vocab_size: Ids in total: special tokens first, then the 256 bytes, then merges. It may stay below this where
            the texts have too few pairs that occur `min_frequency` times.
        special_tokens: Must hold `<|endoftext|>`, the end of a text, and `<|pad|>`.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens.
    """
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}: 256 bytes and {len(special_tokens)} special tokens")
    tokenizer = TrainableTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Tokenizer.from_json(tokenizer.to_str(pretty=True) + "\n", eos_token=END_OF_TEXT, pad_token=PAD)
