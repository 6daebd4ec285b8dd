"""Read the decoder of a `tokenizer.json` as bytes per token, so that text can be put together token by token.

Where SentencePiece writes a character as several byte tokens, the library replaces each byte of a run that is not
valid as a whole; here only the bytes that are invalid are replaced, since a stream cannot take back what it has shown.
It does not know how text became tokens.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.vocabularies.tokenizer_json import TokenizerError, TokenizerFile, byte_alphabet


@dataclass(frozen=True, slots=True)
class TokenDecoder:
    """The bytes of every token, and what is different where a text begins."""

    token_bytes: dict[int, bytes]
    opening_bytes: Mapping[int, bytes] = field(default_factory=dict)
    """Tokens that are written otherwise when they come first."""
    num_opening_spaces: int = 0
    """Most spaces that are dropped from the beginning of a text."""


def read_decoder(file: TokenizerFile) -> TokenDecoder:
    """Read how tokens become text.

    Raises:
        TokenizerError: naming the step that is unsupported.
    """
    decoder = file.root.get("decoder") or {"type": "ByteLevel"}
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return TokenDecoder(_byte_level(file))
    return _read_steps(steps, {id_: text for text, id_ in (file.vocab | file.added_tokens).items()})


def _byte_level(file: TokenizerFile) -> dict[int, bytes]:
    byte_of = {character: byte for byte, character in byte_alphabet().items()}

    def decoded(token: str) -> bytes:
        data = [byte_of.get(character, -1) for character in token]
        return token.encode() if -1 in data else bytes(data)

    added = {id_: text.encode() for text, id_ in file.added_tokens.items()}
    return {id_: decoded(text) for text, id_ in file.vocab.items()} | added


Rewrite = Callable[[str], str]


def _read_steps(steps: list[Mapping[str, Any]], tokens: Mapping[int, str]) -> TokenDecoder:
    first, later = dict(tokens), dict(tokens)
    has_byte_tokens, is_fused, num_opening_spaces = False, False, 0
    for step in steps:
        match step["type"]:
            case "ByteFallback" if not is_fused:
                has_byte_tokens = True
            case "Fuse":
                is_fused = True
            case "Strip" if is_fused and step["content"] == " " and not step["stop"]:
                num_opening_spaces += step["start"]
            case _ if not is_fused:
                rewrite_first, rewrite = _rewrites(step)
                first = {id_: rewrite_first(text) for id_, text in first.items()}
                later = {id_: rewrite(text) for id_, text in later.items()}
            case kind:
                raise _unsupported(kind)
    to_bytes = _bytes_of_fallback if has_byte_tokens else str.encode
    opening = {id_: to_bytes(text) for id_, text in first.items() if text != later[id_]}
    return TokenDecoder({id_: to_bytes(text) for id_, text in later.items()}, opening, num_opening_spaces)


def _rewrites(step: Mapping[str, Any]) -> tuple[Rewrite, Rewrite]:
    """Return what a step does to the first token, and to every other."""
    match step:
        case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
            return (lambda text: text.replace(pattern, content),) * 2
        case {"type": "Metaspace", "replacement": mark}:
            drops = step.get("prepend_scheme", "always") != "never"
            return lambda text: text.replace(mark, "" if drops else " "), lambda text: text.replace(mark, " ")
        case _:
            raise _unsupported(step["type"])


def _unsupported(kind: str) -> TokenizerError:
    return TokenizerError(f"tokenizer.json: decoder step {kind!r} is not supported here")


_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


def _bytes_of_fallback(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.encode()
