"""Text of one sequence as its tokens arrive: whole characters only, cut at the first stop string.

What a stream sends and what a plain answer holds are the same pieces, so they cannot differ. Token ids come in, pieces
of text go out; nothing here knows HTTP, choices or JSON.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from model.tokenizer import StreamDecoder, Tokenizer


class StopMatcher:
    """Find the first stop string in text that arrives in pieces.

    The result depends on the text alone, never on where the pieces are cut: the match that starts first wins, and of
    several at one place the longest. So a match is settled only when no better one can still be completed; until then,
    and while a stop string has only begun, the text from there on is held back.
    """

    def __init__(self, stops: Iterable[str], *, keep_stop: bool = False) -> None:
        """With `keep_stop` the stop string stays in the text."""
        self._stops = sorted(stops, key=len, reverse=True)
        self._keep_stop = keep_stop
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the text, once there is one."""

    def push(self, text: str) -> str:
        """Add a piece; return what is now certain to belong to the text."""
        if not self._stops:
            return text
        self._held += text
        match = self._first_match()
        open_from = min(_open_from(self._held, stop) for stop in self._stops)
        if match is not None and match[0] < open_from:
            return self._end(*match)
        return self._release(open_from)

    def flush(self) -> str:
        """End the text; return what was held back, up to a match that was waiting for a better one."""
        match = self._first_match()
        return self._end(*match) if match else self._release(len(self._held))

    def _first_match(self) -> tuple[int, str] | None:
        matches = [(self._held.find(stop), -len(stop), stop) for stop in self._stops]
        found = min((match for match in matches if match[0] >= 0), default=None)
        return (found[0], found[2]) if found else None

    def _release(self, end: int) -> str:
        released, self._held = self._held[:end], self._held[end:]
        return released

    def _end(self, start: int, stop: str) -> str:
        self.matched = stop
        released = self._held[: start + len(stop) if self._keep_stop else start]
        self._held = ""
        return released


def _open_from(text: str, stop: str) -> int:
    """Where the longest end of `text` begins that `stop` could still continue; its length if there is none."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How tokens become text; the same for every choice of a request."""

    stops: tuple[str, ...] = ()
    keep_stop: bool = False
    skip_special: bool = True
    min_tokens: int = 0
    """Stop strings count only in the text of later tokens."""


class TextPipeline:
    """Tokens of one sequence in, certain text out."""

    def __init__(self, tokenizer: Tokenizer, options: TextOptions, *, opens_text: bool = True) -> None:
        """Without `opens_text` the tokens go on in a text, where they may begin with a space."""
        self._decoder = StreamDecoder(tokenizer, skip_special=options.skip_special, opens_text=opens_text)
        self._matcher = StopMatcher(options.stops, keep_stop=options.keep_stop)
        self._tokens_before_stops = options.min_tokens
        self.num_chars = 0
        """Characters decoded so far, certain or not: where the text of the next token starts."""

    @property
    def matched(self) -> str | None:
        """The stop string that ended the text, once there is one."""
        return self._matcher.matched

    def push(self, token_id: int) -> str:
        """Add a token; return the text that became certain."""
        text = self._decoder.push(token_id)
        self.num_chars += len(text)
        if self._tokens_before_stops > 0:
            self._tokens_before_stops -= 1
            return text
        return self._matcher.push(text)

    def flush(self) -> str:
        """End the text; return what was held back and still belongs to it."""
        rest = self._decoder.flush()
        self.num_chars += len(rest)
        released = self._matcher.push(rest)
        return released if self.matched else released + self._matcher.flush()
