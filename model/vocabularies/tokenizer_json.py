"""What every `tokenizer.json` says alike: its vocabulary, its added tokens, and what it puts before a text.

How text is cut and merged is read by `byte_level` or left to the `tokenizers` library; how ids become text again is
read by `decoder`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class TokenizerError(ValueError):
    """The tokenizer files are broken, or ask for something that we do not implement."""


class NotByteLevel(Exception):
    """The vocabulary cannot be expressed in tiktoken; the message says why."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A parsed `tokenizer.json`."""

    root: Mapping[str, Any]
    vocab: dict[str, int]
    """Token as the file writes it to id, without the added tokens."""
    special_tokens: dict[str, int]
    """Added tokens marked special: control tokens."""
    plain_added_tokens: dict[str, int]
    """Added tokens not marked special: always recognised in text, but text they stay."""
    bos_ids: tuple[int, ...]
    """What the post-processor puts before a text."""
    eats_before: frozenset[int]
    """Added tokens that swallow the white space before them."""
    eats_after: frozenset[int]

    @property
    def added_tokens(self) -> dict[str, int]:
        """Special and plain ones."""
        return self.plain_added_tokens | self.special_tokens


def read_tokenizer_json(source: str) -> TokenizerFile:
    """Parse the text of a `tokenizer.json`.

    Raises:
        TokenizerError: it is malformed, or draws lots.
    """
    try:
        return _read_root(json.loads(source))
    except TokenizerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise malformed(error) from error


def malformed(error: Exception) -> TokenizerError:
    """Put what stumbled over a file in one line."""
    return TokenizerError(f"tokenizer.json: malformed ({type(error).__name__}: {error})")


def byte_alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (openai/gpt-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _read_root(root: Mapping[str, Any]) -> TokenizerFile:
    model = root["model"]
    if model.get("dropout"):
        raise TokenizerError(f"tokenizer.json: model.dropout {model['dropout']!r} would encode a text anew each time")
    added = root.get("added_tokens") or []
    if not all(token["content"] for token in added):
        raise TokenizerError("tokenizer.json: an added token is empty")
    texts = {token["content"] for token in added}
    return TokenizerFile(
        root=root,
        vocab={text: id_ for text, id_ in _vocab(model["vocab"]).items() if text not in texts},
        special_tokens={token["content"]: token["id"] for token in added if token.get("special")},
        plain_added_tokens={token["content"]: token["id"] for token in added if not token.get("special")},
        bos_ids=_bos_ids(root.get("post_processor")),
        eats_before=frozenset(token["id"] for token in added if token.get("lstrip")),
        eats_after=frozenset(token["id"] for token in added if token.get("rstrip")),
    )


def _vocab(vocab: Mapping[str, int] | list[list[Any]]) -> dict[str, int]:
    """BPE and WordPiece map tokens to ids; Unigram lists tokens with scores in order of id."""
    if isinstance(vocab, list):
        return {piece: id_ for id_, (piece, _) in enumerate(vocab)}
    return dict(vocab)


def _bos_ids(processor: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Return what comes before a single text. What may follow it is left out: a prompt is to be continued."""
    if processor is None:
        return ()
    match processor["type"]:
        case "Sequence":
            steps = [_bos_ids(step) for step in processor["processors"]]
            return tuple(id_ for ids in reversed(steps) for id_ in ids)  # a later step wraps what an earlier one made
        case "TemplateProcessing":
            return tuple(_leading_ids(processor))
        case "BertProcessing" | "RobertaProcessing":
            return (processor["cls"][1],)
        case _:
            return ()


def _leading_ids(template: Mapping[str, Any]) -> list[int]:
    ids: list[int] = []
    for item in template["single"]:
        if "SpecialToken" not in item:
            break
        ids += template["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    return ids
