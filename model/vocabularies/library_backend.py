"""Run any other vocabulary, such as SentencePiece's, with the `tokenizers` library that defines the format.

The library is loaded only when a vocabulary needs it. It knows no decoding; that is `decoder`'s.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from model.vocabularies.tokenizer_json import TokenizerError, TokenizerFile, malformed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as Library


class LibraryBackend:
    """Text to ids. Safe to share between threads."""

    def __init__(self, file: TokenizerFile, reason: str) -> None:
        """Take over a vocabulary that tiktoken cannot run, for the `reason` given.

        Raises:
            TokenizerError: the library is not installed, or cannot run the vocabulary either.
        """
        self._root = {**file.root, "truncation": None, "padding": None}
        self._control_ids = frozenset(file.special_tokens.values()) - {_unknown_id(file)}
        self._plain = _load(self._root, reason)

    @cached_property
    def _parsing(self) -> "Library":
        return _load(self._root, parses_special=True)

    @cached_property
    def _after_token(self) -> "Library":
        return _load(_without_openings(self._root, ("first",)))

    @cached_property
    def _inside(self) -> "Library":
        return _load(_without_openings(self._root, ("first", "always")))

    def encode(self, text: str, *, parse_special: bool = False, opens_text: bool = True) -> list[int]:
        """Return the ids of `text`; text of special tokens becomes control tokens only with `parse_special`.

        Without `opens_text` it follows a control token: some vocabularies mark the beginning of the whole text only.
        """
        text = _without_surrogates(text)
        if parse_special:
            return list(self._parsing.encode(text, add_special_tokens=False).ids)
        return self._encode_plain(self._plain if opens_text else self._after_token, text)

    def encode_batch(self, texts: Sequence[str]) -> "list[NDArray[np.uint32]]":
        """Encode plain texts on all cores, unless TOKENIZERS_PARALLELISM says otherwise."""
        import numpy as np

        texts = [_without_surrogates(text) for text in texts]
        batch = [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]
        for at, ids in enumerate(batch):
            if not self._control_ids.isdisjoint(ids):
                batch[at] = self._encode_plain(self._plain, texts[at])
        return [np.array(ids, np.uint32) for ids in batch]

    def _encode_plain(self, library: "Library", text: str) -> list[int]:
        """Encode text that stays text.

        Some kinds of model (Unigram, or those that look up whole words first) find control tokens in their vocabulary
        like any word. A text where that happens is encoded in two halves, and so on, until the word is torn apart.
        """
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
        if self._control_ids.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        if middle == 0:
            return [id_ for id_ in ids if id_ not in self._control_ids]
        return self._encode_plain(library, text[:middle]) + self._encode_plain(self._inside, text[middle:])


def _load(root: Mapping[str, Any], reason: str = "", *, parses_special: bool = False) -> "Library":
    try:
        from tokenizers import Tokenizer as Library
    except ImportError:
        raise TokenizerError(
            f"tokenizer.json: tiktoken cannot run this vocabulary ({reason}); install the library that can: "
            "pip install 'groundup[tokenizers]'"
        ) from None
    try:
        library = Library.from_str(json.dumps(root))
    except Exception as error:  # the library raises nothing more precise
        raise malformed(error) from error
    library.encode_special_tokens = not parses_special  # its name for: text of special tokens is plain text
    return library


def _unknown_id(file: TokenizerFile) -> int | None:
    """Return the id of what the vocabulary has no token for: a special token that plain text may contain."""
    model = file.root["model"]
    found = model.get("unk_id", (file.vocab | file.added_tokens).get(model.get("unk_token") or ""))
    return found if isinstance(found, int) else None


def _without_openings(entry: Any, schemes: Sequence[str]) -> Any:
    """Return the settings of a tokenizer that adds no mark at the beginning of a text, where they are of `schemes`."""
    if isinstance(entry, list):
        return [_without_openings(item, schemes) for item in entry]
    if not isinstance(entry, dict):
        return entry
    match entry.get("type"):
        case "Metaspace" if entry.get("prepend_scheme", "always") in schemes:
            return entry | {"prepend_scheme": "never", "add_prefix_space": False}
        case "Prepend" if "always" in schemes:
            return entry | {"prepend": ""}
        case "ByteLevel" if "always" in schemes:
            return entry | {"add_prefix_space": False}
    steps = ("normalizer", "normalizers", "pre_tokenizer", "pretokenizers")
    return {key: _without_openings(value, schemes) if key in steps else value for key, value in entry.items()}


def _without_surrogates(text: str) -> str:
    """Replace what is half a character, as tiktoken does: it has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
