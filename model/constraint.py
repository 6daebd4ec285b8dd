"""Which tokens may follow, so that a text obeys its grammar: a bit for each token, one state for each sequence.

The work is llguidance's: Earley parsing over derivatives of regular expressions, along a trie of the vocabulary. It is
lazy, so nothing is paid before the first constraint, and bounded by `_LIMITS`, so that no grammar can hang or kill a
process. Tensors are not known here: `model.sampling` applies the bits.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from model.grammar import ConstraintSpec, GrammarError, to_lark
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_CACHED = 64
"""Compiled grammars that are kept."""

_LIMITS: Mapping[str, Any] = {
    "initial_lexer_fuel": 200_000,  # compiling: about 50 for a microsecond
    "max_grammar_size": 50_000,  # symbols: schemas that multiply each other out
    "max_items_in_row": 2_000,  # the rest is for one mask: a few milliseconds
    "step_max_items": 20_000,
    "step_lexer_fuel": 100_000,
    "max_lexer_states": 50_000,  # about 2 kB each
}
"""Under them, compiling takes a second at most but for one thing: whether several patterns have a text in common."""
_STACK_BYTES = 256 * 1024 * 1024
"""Schemas are followed by recursion; only what is used of it becomes memory."""


def compile_thread() -> ThreadPoolExecutor:
    """Start the thread in which all grammars of a process are compiled. It has a stack as deep as schemas may be."""
    previous = threading.stack_size(_STACK_BYTES)
    try:
        executor = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        executor.submit(int).result()  # the thread is made with its first task
    finally:
        threading.stack_size(previous)
    return executor


def check_spec(spec: ConstraintSpec) -> None:
    """Compile for a vocabulary of single bytes. Call it in the `compile_thread` of a process that may be lost.

    Raises:
        GrammarError: the constraint is wrong, unsupported or too complex, or allows no text at all.
    """
    from llguidance import LLTokenizer

    _compile(LLTokenizer("byte"), to_lark(spec))


class Constraint:
    """The state of one sequence. It goes forward only, by `accept`."""

    def __init__(self, matcher: "LLMatcher", mask: bytes, spec: ConstraintSpec) -> None:
        """`mask` is that of the first token."""
        self._matcher = matcher
        self._mask: bytes | None = mask
        self.spec = spec
        self.failure: str | None = None
        """Why nothing can be said any more: a limit was met, or no token of the vocabulary can go on."""

    def mask(self) -> bytes:
        """Return a bit for each token that may follow, lowest bit first; for end tokens, where the text may end.

        Once there is a `failure`, all bits are set.
        """
        if self._mask is None:
            self._mask = self._matcher.compute_bitmask()
            if self._matcher.is_error():
                self.failure = _reason(self._matcher.get_error())
                self._mask = b"\xff" * len(self._mask)
        return self._mask

    def accept(self, token_id: int) -> bool:
        """Go on by a token that the mask allowed; False once there is a `failure`, when the text is worth nothing."""
        self._mask = None
        if self.failure is None and not self._matcher.consume_token(token_id):
            self.failure = _reason(self._matcher.get_error())
        return self.failure is None

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())


class ConstraintFactory:
    """Makes constraints for one vocabulary, and keeps the grammars it has compiled. Only one thread may use it."""

    def __init__(self, load_tokenizer: Callable[[], Tokenizer], *, vocab_size: int, end_ids: Sequence[int]) -> None:
        """`vocab_size` is the model's, which may have more rows than the tokenizer has tokens."""
        self._load_tokenizer = load_tokenizer
        self._vocab_size = vocab_size
        self._end_ids = end_ids
        self._compiled: OrderedDict[ConstraintSpec, Constraint] = OrderedDict()

    def make(self, spec: ConstraintSpec) -> Constraint:
        """Return a constraint at the beginning of a text. Call it in the `compile_thread`.

        Raises:
            GrammarError: the constraint is wrong, unsupported or too complex, or allows no text at all.
        """
        if spec not in self._compiled:
            self._compiled[spec] = self._compile(spec)
            if len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(spec)
        first = self._compiled[spec]
        return Constraint(first._matcher.deep_copy(), first.mask(), spec)

    def _compile(self, spec: ConstraintSpec) -> Constraint:
        opening = " " * self._num_opening_spaces if spec.opens_text else ""
        matcher, mask = _compile(self._vocabulary, to_lark(spec, opening))
        if opening:
            mask = self._without_crippled(mask)
        if not any(mask):
            raise GrammarError(_PLAINER["NoExtensionBias"])
        return Constraint(matcher, mask, spec)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self._load_tokenizer()

    @cached_property
    def _vocabulary(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        words = _Words(self._tokenizer, self._vocab_size, self._end_ids)
        return LLTokenizer(words, eos_token=words.end_ids)  # type: ignore[arg-type]  # it asks for no more than this

    @property
    def _num_opening_spaces(self) -> int:
        """How many spaces at the beginning of a text are not shown."""
        decoder = self._tokenizer.decoder
        return max(decoder.num_opening_spaces, 1 if decoder.opening_bytes else 0)

    def _without_crippled(self, mask: bytes) -> bytes:
        """Leave out first tokens that lose more than the opening's spaces when they are shown."""
        spaces = b" " * self._num_opening_spaces
        bits = int.from_bytes(mask, "little")
        for token_id in self._tokenizer.decoder.token_bytes:
            inside = self._tokenizer.token_bytes(token_id)
            if self._tokenizer.token_bytes(token_id, opens_text=True) != inside.removeprefix(spaces):
                bits &= ~(1 << token_id)
        return bits.to_bytes(len(mask), "little")


class _Words:
    """A vocabulary as llguidance reads it."""

    is_tokenizer_wrapper = True
    bos_token_id: int | None = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> None:
        self.end_ids = list(end_ids) or [tokenizer.eos_id]
        self.eos_token_id = self.end_ids[0]
        self.special_token_ids = sorted({*tokenizer.special_ids, *self.end_ids})
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _compile(vocabulary: "LLTokenizer", lark: str) -> "tuple[LLMatcher, bytes]":
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False, **_LIMITS)
    matcher = LLMatcher(vocabulary, lark, log_level=0, limits=limits)
    mask = matcher.compute_bitmask()
    if matcher.is_error():
        raise GrammarError(_reason(matcher.get_error()))
    return matcher, mask


_PLAINER = {
    "oneOf constraints are not supported": "'oneOf' is supported where no value can satisfy two of its schemas",
    "NoExtensionBias": "no text of this vocabulary can satisfy it",
}


def _reason(message: str) -> str:
    """Cut what only llguidance's authors want to read, and the grammar that nobody wrote."""
    for sign, plainer in _PLAINER.items():
        if sign in message:
            return plainer
    first = message.split("\n   1 | ")[0].split("\n<")[0]
    return first.partition("failed to compile JSON schema: ")[2] or first.partition("): ")[2] or first
