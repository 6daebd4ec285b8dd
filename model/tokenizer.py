"""Text to token ids and back, for any `tokenizer.json`; and decoding that streams.

Which library runs a vocabulary is a matter of `model.vocabularies`: the ids are the same. What a model wants before a
text is in `bos_ids`, and never added unasked. Conversations are `model.chat`'s.
"""

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from model.vocabularies.byte_level import read_byte_level
from model.vocabularies.decoder import TokenDecoder, read_decoder
from model.vocabularies.library_backend import LibraryBackend
from model.vocabularies.openai import END_OF_TEXT, TIKTOKEN_NAMES, tiktoken_json
from model.vocabularies.tiktoken_backend import TiktokenBackend
from model.vocabularies.tokenizer_json import (
    NotByteLevel,
    TokenizerError,
    TokenizerFile,
    malformed,
    read_tokenizer_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Backend(Protocol):
    """What turns text into ids."""

    def encode(self, text: str, *, parse_special: bool = False, opens_text: bool = True) -> list[int]:
        """Return the ids of `text`, which opens a text or follows a control token."""

    def encode_batch(self, texts: Sequence[str]) -> "list[NDArray[np.uint32]]":
        """Encode plain texts as fast as possible."""


class Tokenizer:
    """One vocabulary with its special tokens. Immutable, free of torch, and safe to share between threads."""

    def __init__(self, tokenizer_json: str, config: Mapping[str, Any]) -> None:
        """Build from the text of `tokenizer.json` and the entries of `tokenizer_config.json`.

        Raises:
            TokenizerError: the vocabulary is broken or unsupported, or `eos_token` is not one of its tokens.
        """
        file = read_tokenizer_json(tokenizer_json)
        self.special_tokens = file.special_tokens
        self.special_ids = frozenset(file.special_tokens.values())
        self.bos_ids = file.bos_ids
        """What the model expects before a text; empty for most byte-level vocabularies."""
        self.decoder, self._backend = _read(file)
        self.vocab_size = max(self.decoder.token_bytes) + 1
        self.named_tokens = _named_tokens(config)
        """`eos_token`, `pad_token` and their like, as chat templates refer to them."""
        self.max_length = _max_length(config)
        """Tokens of a text that its model was made to read, where the config says so."""
        self.truncation_side: Literal["left", "right"] = "left" if config.get("truncation_side") == "left" else "right"
        """Which end of a longer one is cut."""
        self._file = file
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
        originals = {name: _read_file(path / name) for name in ("tokenizer.json", "tokenizer_config.json")}
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

    def with_cut(self, max_length: int, side: Literal["left", "right"]) -> "Tokenizer":
        """Return the same vocabulary for a model that reads so many tokens of a text; `side` is the one that is cut."""
        config = json.loads(self._files["tokenizer_config.json"])
        cut = {"model_max_length": max_length, "truncation_side": side}
        named = {"eos_token": self.named_tokens["eos_token"]}
        return Tokenizer(self._files["tokenizer.json"].decode(), config | named | cut)

    def with_control_tokens(self, tokens: Sequence[str]) -> "Tokenizer":
        """Return the same vocabulary with further control tokens behind the others; those it has keep their ids.

        Raises:
            TokenizerError: the vocabulary knows one of them as text.
        """
        root = json.loads(self._files["tokenizer.json"])
        entries, next_id = list(root.get("added_tokens") or []), self.vocab_size
        for token in [token for token in dict.fromkeys(tokens) if token not in self.special_tokens]:
            if token in self._file.added_tokens or token in self._file.vocab:
                raise TokenizerError(f"tokenizer.json: {token} is a word of the vocabulary and cannot control it, too")
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            entries.append({"id": next_id, "content": token, **flags, "special": True})
            next_id += 1
        config = json.loads(self._files["tokenizer_config.json"])
        if "added_tokens_decoder" in config:  # older files say it twice
            config["added_tokens_decoder"] |= {
                str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in entries
            }
        text = json.dumps(root | {"added_tokens": entries}, indent=2, ensure_ascii=False) + "\n"
        return Tokenizer(text, config | {"eos_token": self.named_tokens["eos_token"]})

    def files(self) -> dict[str, bytes]:
        """Return the files that describe this tokenizer in a checkpoint directory."""
        return dict(self._files)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of `text`; text of special tokens becomes control tokens only with `parse_special`."""
        return self._backend.encode(text, parse_special=parse_special)

    def encode_batch(self, texts: Sequence[str]) -> "list[NDArray[np.uint32]]":
        """Return what `encode` does, plain, for each of many texts: the fastest way for data sets."""
        return self._backend.encode_batch(texts)

    def encode_pieces(self, pieces: Sequence[int | str], *, opens_text: bool = True) -> list[int]:
        """Return the ids of a text whose control tokens are given as ids, and whose other pieces are plain text.

        Without `opens_text` it goes on from another.
        """
        ids: list[int] = []
        for at, piece in enumerate(pieces):
            if isinstance(piece, str):
                ids += self._backend.encode(self._trimmed(piece, pieces, at), opens_text=opens_text and at == 0)
            else:
                ids.append(piece)
        return ids

    def _trimmed(self, piece: str, pieces: Sequence[int | str], at: int) -> str:
        """Cut off the white space that a neighbouring control token swallows."""
        if at > 0 and pieces[at - 1] in self._file.eats_after:
            piece = piece.lstrip()
        if at + 1 < len(pieces) and pieces[at + 1] in self._file.eats_before:
            piece = piece.rstrip()
        return piece

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Return the text of `ids`, with U+FFFD for bytes that are not UTF-8. Unknown ids have no text."""
        decoder = StreamDecoder(self, skip_special=skip_special)
        pieces = [decoder.push(id_) for id_ in ids]
        return "".join(pieces) + decoder.flush()

    def token_bytes(self, token_id: int, *, opens_text: bool = False) -> bytes:
        """Return the bytes of one token, inside a text or where one opens; a character may span several tokens.

        Unknown ids have none.
        """
        data = self.decoder.token_bytes.get(token_id, b"")
        if not opens_text:
            return data
        data = self.decoder.opening_bytes.get(token_id, data)
        return data[min(len(data) - len(data.lstrip(b" ")), self.decoder.num_opening_spaces) :]

    def _named_id(self, name: str) -> int:
        token, added = self.named_tokens.get(name), self._file.added_tokens
        if token not in added:
            raise TokenizerError(f"tokenizer_config.json: {name} {token!r} is not an added token of tokenizer.json")
        return added[token]


def _max_length(config: Mapping[str, Any]) -> int | None:
    length = config.get("model_max_length")
    return length if isinstance(length, int) and 0 < length < 2**31 else None  # transformers writes 1e30 for "any"


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

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, opens_text: bool = True) -> None:
        """Without `opens_text` the ids go on from others, and keep a space that a text's beginning would lose."""
        self._bytes = tokenizer.decoder
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_first = opens_text
        self._num_opening_spaces = self._bytes.num_opening_spaces if opens_text else 0

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; an unfinished character at the end is held back."""
        if token_id in self._skipped:
            return ""
        data = self._bytes.token_bytes.get(token_id)
        if data is None:
            return ""
        if self._is_first:
            data = self._bytes.opening_bytes.get(token_id, data)
            self._is_first = False
        return self._decoder.decode(self._without_opening_spaces(data) if self._num_opening_spaces else data)

    def flush(self) -> str:
        """Return what was held back: U+FFFD if the text ends inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)

    def _without_opening_spaces(self, data: bytes) -> bytes:
        rest = data.lstrip(b" ")
        num_dropped = min(len(data) - len(rest), self._num_opening_spaces)
        self._num_opening_spaces = 0 if rest else self._num_opening_spaces - num_dropped
        return data[num_dropped:]


def _read(file: TokenizerFile) -> tuple[TokenDecoder, Backend]:
    try:
        return read_decoder(file), _choose_backend(file)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise malformed(error) from error


def _choose_backend(file: TokenizerFile) -> Backend:
    """Prefer tiktoken, which is faster and always there."""
    try:
        return TiktokenBackend(read_byte_level(file), file.special_tokens, file.plain_added_tokens)
    except NotByteLevel as reason:
        return LibraryBackend(file, str(reason))


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


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        older = [name for name in ("tokenizer.model", "vocab.json") if (path.parent / name).exists()]
        hint = f"; {older[0]} is an older format: let transformers load and save it once" if older else ""
        raise TokenizerError(f"{path}: cannot be read ({error.strerror}){hint}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(_read_file(path))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON ({error})") from error
    if not isinstance(loaded, dict):
        raise TokenizerError(f"{path}: expected a JSON object")
    return loaded


def _dump(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
