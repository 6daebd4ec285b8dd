"""Classes of characters in regular expressions, so written that what matches satisfies every dialect.

What `\\d`, `\\w` and `\\s` mean is ASCII in some and Unicode in others, and so is what they leave out. It knows
brackets and backslashes, and nothing else of expressions.
"""

import re
from collections.abc import Sequence

_NARROW = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\r\f\v"}
_WIDE = {
    "d": r"\d\p{Nd}",
    "w": r"\w\p{L}\p{M}\p{N}\p{Pc}\x{200c}\x{200d}",
    "s": r"\s\x1c-\x1f\x85\p{Z}\x{feff}",
}
"""Whatever any dialect counts to a class: Python's, JavaScript's and Rust's differ."""
_PIECES = re.compile(r"\\.|\[\^?|\]|.", re.DOTALL)


def narrow_classes(regex: str) -> str:
    r"""Write `\d`, `\w` and `\s` out: ASCII where they are allowed, as wide as any dialect where they are excluded."""
    pieces: list[str] = []
    brackets: list[str] = []
    for piece in _PIECES.findall(regex):
        if piece.startswith("["):
            brackets.append(piece)
        elif piece == "]" and brackets:
            brackets.pop()
        pieces.append(_class(piece, brackets) or piece)
    return "".join(pieces)


def _class(piece: str, brackets: Sequence[str]) -> str | None:
    """Write a class out, within these brackets; None for all else."""
    name = piece[1:].lower()
    if not piece.startswith("\\") or name not in _NARROW:
        return None
    is_complement = piece[1:] != name
    characters = (_WIDE if is_complement != ("[^" in brackets) else _NARROW)[name]
    if is_complement:
        return f"[^{characters}]"
    return characters if brackets else f"[{characters}]"
