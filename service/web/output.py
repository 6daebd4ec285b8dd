"""From a worker's events to what a choice gains: pieces of text, the tokens behind them, the reason of the end.

A streamed chunk shows one `Delta`; a plain answer shows the fold of all of them.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from model.tokenizer import StreamDecoder, Tokenizer
from service.host.messages import FinishReason, Token, TokenLogprob
from service.web.text import TextOptions, TextPipeline


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token and where its text starts, for log-probabilities."""

    token_id: int
    logprob: TokenLogprob | None
    start: int
    """Character offset into the text of the choice."""
    is_shown: bool
    """False for tokens that leave no text: the one that ended the sequence, and control tokens that are skipped."""
    opens_text: bool = False
    """Whether it is the first of a text, where some vocabularies write it without its space."""


@dataclass(slots=True)
class Delta:
    """What one choice gains at once."""

    text: str = ""
    entries: Sequence[TokenEntry] = ()
    token_ids: Sequence[int] = ()
    prompt_token_ids: Sequence[int] = ()
    """With the first delta of a choice that reports token ids."""
    prompt_logprobs: Sequence[tuple[int, TokenLogprob | None]] = ()
    """The prompt's tokens with their scores, with the first delta of a choice that reports them."""
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is text and nothing else."""
        return not (self.entries or self.token_ids or self.prompt_token_ids or self.finish_reason)


def fold(deltas: Iterable[Delta]) -> Delta:
    """Join the deltas of one choice into the whole."""
    parts: list[str] = []
    entries: list[TokenEntry] = []
    token_ids: list[int] = []
    whole = Delta(entries=entries, token_ids=token_ids)
    for delta in deltas:
        parts.append(delta.text)
        entries.extend(delta.entries)
        token_ids.extend(delta.token_ids)
        whole.prompt_token_ids = whole.prompt_token_ids or delta.prompt_token_ids
        whole.prompt_logprobs = whole.prompt_logprobs or delta.prompt_logprobs
        if delta.finish_reason is not None:
            whole.finish_reason, whole.stop_reason = delta.finish_reason, delta.stop_reason
    whole.text = "".join(parts)
    return whole


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is shown in front of the answer."""

    text: str
    token_ids: Sequence[int] = ()
    starts: Sequence[int] = ()
    """Character offset of each token; empty when the tokens are not reported."""

    @classmethod
    def of_tokens(cls, tokenizer: Tokenizer, token_ids: Sequence[int], *, num_hidden: int = 0) -> "Echo":
        """Decode a prompt, control tokens included but for the first few, and remember where each token starts."""
        decoder = StreamDecoder(tokenizer, skip_special=False)
        parts: list[str] = []
        starts = [0] * num_hidden
        num_chars = 0
        for token_id in token_ids[num_hidden:]:
            starts.append(num_chars)
            parts.append(decoder.push(token_id))
            num_chars += len(parts[-1])
        return cls("".join(parts) + decoder.flush(), token_ids, starts)

    def delta(self, logprobs: Sequence[TokenLogprob | None] | None) -> Delta:
        """Show the prompt, with its tokens when they were scored."""
        if logprobs is None or not self.starts:
            return Delta(self.text)
        scored = zip(self.token_ids, logprobs, self.starts, strict=True)
        return Delta(self.text, [TokenEntry(token_id, logprob, start, True) for token_id, logprob, start in scored])


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What the choices of a request show; the same for all of them."""

    text: TextOptions
    num_logprobs: int | None = None
    """Report tokens with their log-probabilities and this many alternatives."""
    num_prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    keeps_token_ids: bool = False
    """Report bare token ids."""
    stops_of_token: dict[int, str] = field(default_factory=dict)
    """Stop strings that are control tokens: the worker stops at their ids, since skipped tokens have no text."""
    continues_text: bool = False
    """Whether the answer goes on in the text of its prompt."""
    interval: int = 1
    """How many tokens to gather before they are shown; the first and the last never wait."""


class SequenceOutput:
    """One generated sequence on its way out."""

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int], options: OutputOptions, echo: Echo | None = None
    ) -> None:
        self._opens_text = not options.continues_text or all(id_ in tokenizer.special_ids for id_ in prompt_ids)
        self._pipeline = TextPipeline(tokenizer, options.text, opens_text=self._opens_text)
        self._skipped_ids = tokenizer.special_ids if options.text.skip_special else frozenset[int]()
        self._options = options
        self._echo = echo
        self._offset = len(echo.text) if echo else 0
        self._num_released = 0
        self._pending: deque[tuple[int, TokenEntry]] = deque()  # with the offset at which the token's text is complete
        self._unsent_ids: list[int] = []
        self._unsent_prompt_ids = prompt_ids if options.keeps_token_ids else ()
        self._scored_ids = prompt_ids if options.num_prompt_logprobs is not None else ()
        self._unsent_text = ""
        self._next_due = 1
        self.num_tokens = 0
        self.is_finished = False

    def take_echo(self, event: Token) -> Delta | None:
        """Return the prompt's delta, once, when the first token comes."""
        echo, self._echo = self._echo, None
        return echo.delta(event.prompt_logprobs) if echo else None

    def push(self, event: Token) -> Delta | None:
        """Add a token; return what became certain, None when nothing did."""
        text = self._unsent_text + ("" if event.token_id is None else self._add(event.token_id, event))
        reason: FinishReason | None = event.finish_reason
        if reason is not None and self._pipeline.matched is None:
            text += self._pipeline.flush()
        if self._pipeline.matched is not None:
            reason = "stop"
        if reason is not None:
            return self._finish(text, reason, event)
        is_due = self.num_tokens >= self._next_due
        self._unsent_text = "" if is_due else text
        return self._delta(text) if text and is_due else None

    def take_prompt_logprobs(self, event: Token) -> Delta | None:
        """Return the prompt's tokens with their scores, once, when the first token comes."""
        scored_ids, self._scored_ids = self._scored_ids, ()
        if not scored_ids or event.prompt_logprobs is None:
            return None
        return Delta(prompt_logprobs=list(zip(scored_ids, event.prompt_logprobs, strict=True)))

    def _add(self, token_id: int, event: Token) -> str:
        self.num_tokens += 1
        if self._options.keeps_token_ids:
            self._unsent_ids.append(token_id)
        ends_sequence = event.finish_reason == "stop"
        start = self._pipeline.num_chars
        text = "" if ends_sequence else self._pipeline.push(token_id)
        if self._options.num_logprobs is not None:
            is_shown = not ends_sequence and token_id not in self._skipped_ids
            # A token that completed no character is part of the next one.
            gained = max(1, self._pipeline.num_chars - start) if is_shown else 0
            opens_text, self._opens_text = is_shown and self._opens_text, self._opens_text and not is_shown
            entry = TokenEntry(token_id, event.logprob, self._offset + start, is_shown, opens_text)
            self._pending.append((start + gained, entry))
        return text

    def _delta(self, text: str) -> Delta:
        self._num_released += len(text)
        self._next_due = self.num_tokens + self._options.interval
        entries: list[TokenEntry] = []
        while self._pending and self._pending[0][0] <= self._num_released:
            entries.append(self._pending.popleft()[1])
        token_ids, self._unsent_ids = self._unsent_ids, []
        prompt_ids, self._unsent_prompt_ids = self._unsent_prompt_ids, ()
        return Delta(text, entries, token_ids, prompt_ids)

    def _finish(self, text: str, reason: FinishReason, event: Token) -> Delta:
        self.is_finished = True
        stop_string = self._pipeline.matched
        if stop_string is None and event.stop_token_id in self._options.stops_of_token:
            stop_string = self._options.stops_of_token[event.stop_token_id]
            text += stop_string if self._options.text.keep_stop else ""
        delta = self._delta(text)
        text_end = self._offset + self._num_released
        rest = [entry for _, entry in self._pending if self._pipeline.matched is None or entry.start < text_end]
        delta.entries = [*delta.entries, *rest]
        delta.finish_reason = reason
        delta.stop_reason = stop_string if stop_string is not None else event.stop_token_id
        return delta
