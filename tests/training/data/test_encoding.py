import numpy as np

from model.tokenizer import Tokenizer
from training.data.encoding import encode_documents, fingerprint, text_bytes
from training.vocabulary import train_bpe

STORIES = ["The quick brown fox.\n", "A small boat in 1869.\n", "\u65e5\u672c\u8a9e \U0001f642\n"]


def test_each_document_is_followed_by_its_end(tokenizer: Tokenizer) -> None:
    ids = encode_documents(STORIES, tokenizer)
    assert ids.dtype == np.uint16
    assert tokenizer.decode(ids.tolist()) == "".join(f"{story}<|endoftext|>" for story in STORIES)


def test_bytes_of_text_are_counted_without_special_tokens(tokenizer: Tokenizer) -> None:
    assert text_bytes(encode_documents(STORIES, tokenizer), tokenizer) == len("".join(STORIES).encode())


def test_a_fingerprint_tells_vocabularies_apart(tokenizer: Tokenizer) -> None:
    assert fingerprint(tokenizer) == fingerprint(tokenizer.with_eos("<|end|>"))
    assert fingerprint(tokenizer) != fingerprint(train_bpe(STORIES, 270))
