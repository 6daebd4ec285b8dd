"""Small vocabularies of the kinds that public models have, trained on a few sentences by the `tokenizers` library."""

import json
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from tests.fuzz import SPECIAL

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "The quick brown fox doesn't jump over 1234 lazy dogs; it's they who'll jump.\n\n  Indented    text\t",
    "Hello, hello! \u00dcber stra\u00dfe na\u00efve caf\u00e9 \u4f60\u597d\u4e16\u754c aaaaaaaa",
    "\u3053\u3093\u306b\u3061\u306f \U0001f600\U0001f680",
    "def f(x):\n    return x ** 2  # comment\n\n\nclass A:\n\tpass\r\n",
] * 4


def trained(pre_tokenizer: Any, vocab_size: int = 420, changes: dict[str, Any] | None = None) -> str:
    """Return the tokenizer.json of a small byte-level vocabulary, with entries of its root replaced."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    return json.dumps(json.loads(library.to_str()) | (changes or {}))


def byte_level(**options: Any) -> Any:
    return pre_tokenizers.ByteLevel(**({"add_prefix_space": False} | options))


def split(pattern: str, behavior: str = "isolated", *, invert: bool = False) -> Any:
    first = pre_tokenizers.Split(Regex(pattern), behavior, invert)
    return pre_tokenizers.Sequence([first, byte_level(use_regex=False)])


def llama2(*, legacy: bool = True, corpus: list[str] = CORPUS, vocab_size: int = 520) -> str:
    """Return a vocabulary as SentencePiece makes them: spaces are marks, unknown characters are spelled in bytes.

    Of two ways to write it, the `legacy` one marks the beginning of each piece between control tokens.
    """
    library = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=60,
        show_progress=False,
    )
    library.train_from_iterator(corpus, trainer)
    root = json.loads(library.to_str())
    library = Library.from_str(json.dumps(root | {"added_tokens": root["added_tokens"][:3]}))
    library.pre_tokenizer = None if legacy else pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if legacy:
        library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return library.to_str()


LLAMA2_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token }}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA2_CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}


def unigram() -> str:
    """Return a vocabulary of the other kind that SentencePiece makes, as T5 has it."""
    library = Library(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    library.decoder = decoders.Metaspace()
    library.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return library.to_str()
