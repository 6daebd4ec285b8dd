"""Text to token ids and back: a `tokenizer.json` run by tiktoken, and decoding that streams.

It applies no post-processor (no BOS is added): ids are those of the text and nothing else. Conversations are
`model.chat`'s; the file format is `model.tokenizer_json`'s.
"""

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tiktoken

from model.openai_vocabulary import END_OF_TEXT, TIKTOKEN_NAMES, tiktoken_json
from model.tokenizer_json import TokenizerError, read_tokenizer_json

MAX_SPACE_RUN = 50_000
"""Longer runs of whitespace are cut before tiktoken sees them: a million overflow the stack of its regex engine."""


class Tokenizer:
    """One vocabulary with its special tokens. Immutable, free of torch, and safe to share between threads."""

    def __init__(self, tokenizer_json: str, config: Mapping[str, Any]) -> None:
        """Build from the text of `tokenizer.json` and the entries of `tokenizer_config.json`.

        Raises:
            TokenizerError: the vocabulary is broken or unsupported, or `eos_token` is not one of its tokens.
        """
        spec = read_tokenizer_json(tokenizer_json)
        self.special_tokens = spec.special_tokens
        self.special_ids = frozenset(spec.special_tokens.values())
        self.vocab_size = max(spec.token_bytes) + 1
        self.named_tokens = _named_tokens(config)
        """`eos_token`, `pad_token` and their like, as chat templates refer to them."""
        self._spec = spec
        self._encoding = tiktoken.Encoding(
            "tokenizer.json", pat_str=spec.pattern, mergeable_ranks=spec.ranks, special_tokens={}
        )
        self._added = spec.plain_added_tokens | spec.special_tokens
        self._split_plain = _alternatives(spec.plain_added_tokens)
        self._split_all = _alternatives(self._added)
        self.eos_id = self._named_id("eos_token")
        self.pad_id = self._named_id("pad_token") if "pad_token" in self.named_tokens else None
        self._files = {"tokenizer.json": tokenizer_json.encode(), "tokenizer_config.json": _dump(config)}

    @classmethod
    def from_json(cls, tokenizer_json: str, eos_token: str, pad_token: str | None = None) -> "Tokenizer":
        """Build a tokenizer that has no directory yet, such as one just trained."""
        config = {
            "clean_up_tokenization_spaces": False,
            "eos_token": eos_token,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        return cls(tokenizer_json, config | ({} if pad_token is None else {"pad_token": pad_token}))

    @classmethod
    def from_tiktoken(cls, name: str) -> "Tokenizer":
        """Take a published vocabulary, such as `gpt2`, from tiktoken's cache or from where tiktoken fetches it.

        Raises:
            TokenizerError: the name is unknown, or the vocabulary cannot be had; it says how to put it in the cache.
        """
        return cls.from_json(tiktoken_json(name), eos_token=END_OF_TEXT)

    @classmethod
    def from_directory(cls, path: str | Path) -> "Tokenizer":
        """Load `tokenizer.json` and `tokenizer_config.json`; `files()` gives them back byte for byte.

        Where the config names no end token, `generation_config.json` or `config.json` may name its id.

        Raises:
            TokenizerError: naming the file that is missing, broken or unsupported.
        """
        path = Path(path)
        originals = {name: _read(path / name) for name in ("tokenizer.json", "tokenizer_config.json")}
        config = _load(path / "tokenizer_config.json")
        if not _named_tokens(config).get("eos_token"):
            config = config | {"eos_token": _end_token(path, originals["tokenizer.json"].decode())}
        try:
            tokenizer = cls(originals["tokenizer.json"].decode(), config)
        except ValueError as error:
            raise TokenizerError(f"{path}: {error}") from error
        tokenizer._files = originals
        return tokenizer

    def with_eos(self, eos_token: str) -> "Tokenizer":
        """Return the same vocabulary with another end token: a chat model ends turns, a base model ends texts."""
        config = json.loads(self._files["tokenizer_config.json"])
        return Tokenizer(self._files["tokenizer.json"].decode(), config | {"eos_token": eos_token})

    def files(self) -> dict[str, bytes]:
        """Return the files that describe this tokenizer in a checkpoint directory."""
        return dict(self._files)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of `text`; text of special tokens becomes control tokens only with `parse_special`."""
        ids: list[int] = []
        for piece in _split(text, self._split_all if parse_special else self._split_plain):
            if piece in self._added and (parse_special or piece not in self.special_tokens):
                ids.append(self._added[piece])
            else:
                ids.extend(self._encode_ordinary(piece))
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Return the text of `ids`, with U+FFFD for bytes that are not UTF-8. Unknown ids have no text."""
        skipped = self.special_ids if skip_special else frozenset()
        return b"".join(self.token_bytes(id_) for id_ in ids if id_ not in skipped).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token; one character may span several tokens. Unknown ids have none."""
        return self._spec.token_bytes.get(token_id, b"")

    def _encode_ordinary(self, text: str) -> list[int]:
        if self._spec.normalizes_nfc:
            text = unicodedata.normalize("NFC", text)
        if self._spec.adds_prefix_space and not text.startswith(" "):
            text = " " + text
        id_of_rank = self._spec.id_of_rank
        return [id_of_rank[rank] for chunk in _cut_space_runs(text) for rank in self._encoding.encode_ordinary(chunk)]

    def _named_id(self, name: str) -> int:
        token = self.named_tokens.get(name)
        if token not in self._added:
            raise TokenizerError(f"tokenizer_config.json: {name} {token!r} is not an added token of tokenizer.json")
        return self._added[token]


def load_tokenizer(name_or_directory: str | Path) -> Tokenizer:
    """Load a directory with a `tokenizer.json`, or a vocabulary that tiktoken knows; a directory of that name wins.

    Raises:
        TokenizerError: it is neither, or broken, or cannot be fetched.
    """
    if Path(name_or_directory).is_dir():
        return Tokenizer.from_directory(name_or_directory)
    if str(name_or_directory) in TIKTOKEN_NAMES:
        return Tokenizer.from_tiktoken(str(name_or_directory))
    raise TokenizerError(f"{name_or_directory}: neither a directory nor one of {', '.join(TIKTOKEN_NAMES)}")


class StreamDecoder:
    """Decode token by token. What `push` and `flush` return joins to `decode` of all the ids."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; an unfinished character at the end is held back."""
        if token_id in self._skipped:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """Return what was held back: U+FFFD if the text ends inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)


def _alternatives(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Compile a splitter that keeps what it splits at; of two tokens at one place the longer wins."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None


def _split(text: str, pattern: re.Pattern[str] | None) -> list[str]:
    return [piece for piece in (pattern.split(text) if pattern else [text]) if piece]


def _cut_space_runs(text: str) -> Iterator[str]:
    start = 0
    if len(text) > MAX_SPACE_RUN:
        for run in re.finditer(r"\s+", text):
            for cut in range(run.start() + MAX_SPACE_RUN, run.end(), MAX_SPACE_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:]


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Pick the `*_token` entries; a token is a string or, in older files, an object that holds one."""
    found = {name: entry for name, entry in config.items() if name.endswith("_token")}
    texts = {name: entry.get("content") if isinstance(entry, dict) else entry for name, entry in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _end_token(path: Path, tokenizer_json: str) -> str:
    special = {id_: text for text, id_ in read_tokenizer_json(tokenizer_json).special_tokens.items()}
    for name in ("generation_config.json", "config.json"):
        end = _load(path / name).get("eos_token_id") if (path / name).exists() else None
        first = end[0] if isinstance(end, list) and end else end
        if first in special:
            return special[first]
    raise TokenizerError(
        f"{path / 'tokenizer_config.json'}: eos_token is missing, and no other file names an end token"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(_read(path))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON ({error})") from error
    if not isinstance(loaded, dict):
        raise TokenizerError(f"{path}: expected a JSON object")
    return loaded


def _dump(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
