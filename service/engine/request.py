"""One sequence on its way through the engine, and what a step has to say about it.

No tensors and no text: a sequence is a list of token ids and a few counters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from model.sampling_params import SamplingParams

if TYPE_CHECKING:
    from model.constraint import Constraint

FinishReason = Literal["stop", "length"]
Pooling = Literal["mean", "last"]
FailureCode = Literal["queue_timeout", "timeout", "internal_error", "invalid_constraint"]


@dataclass(slots=True, frozen=True)
class Logprob:
    """Log-softmax of the raw logits at one token, and the most likely alternatives, best first."""

    logprob: float
    top: list[tuple[int, float]]


@dataclass(slots=True, eq=False)
class Request:
    """One sequence. The caller fills the first block; the rest belongs to the engine."""

    uid: str
    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    choice: int = 0
    end_ids: tuple[int, ...] = ()
    """The model's own end tokens."""
    arrival_s: float = 0.0
    queue_deadline_s: float = math.inf
    """Past it, a sequence that was never admitted fails; like all times here, on the engine's clock."""
    deadline_s: float = math.inf
    """Past it, the sequence fails wherever it is."""
    adapter: str | None = None
    """The LoRA adapter that computes this sequence, by name; None is the base."""
    cache_salt: str = ""
    """Sequences with different salts share no cached prefixes."""
    pooling: Pooling | None = None
    """Such a sequence generates nothing: its hidden states, averaged or only the last, are what `Pooled` carries."""
    head: str | None = None
    """With pooling `last`: the classification head that is applied to the pooled state, by name."""
    constraint: "Constraint | None" = None
    """What tokens may follow. It has advanced over `output_ids`, and outlives preemption as they do."""

    output_ids: list[int] = field(default_factory=list, init=False)
    num_cached: int = field(default=0, init=False)
    """Leading tokens whose keys and values are in the cache; preemption sets it back to 0."""
    page_keys: list[bytes] = field(default_factory=list, init=False)
    """What stands for the content of each full page so far, in `pages.PagePool`."""
    was_admitted: bool = field(default=False, init=False)
    prompt_logprobs: list[Logprob | None] = field(default_factory=lambda: [None], init=False)
    """Scores of the prompt so far. They outlive preemption, so nothing is scored or sent twice."""
    pooled: list[float] = field(default_factory=list, init=False)
    """Sum of what the rows of a pooled sequence gave so far; preemption empties it."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def num_uncached(self) -> int:
        return self.num_tokens - self.num_cached

    @property
    def may_reuse(self) -> bool:
        """Whether cached pages of others will do: not where every token of the prompt must be seen here."""
        return self.pooling != "mean" and self.params.prompt_logprobs is None

    @property
    def ending_ids(self) -> tuple[int, ...]:
        """Every id that ends this sequence."""
        return self.params.stop_token_ids if self.params.ignore_eos else self.end_ids + self.params.stop_token_ids

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Prompt and output as one sequence, cut to `[start, stop)`."""
        num_prompt = len(self.prompt_ids)
        outputs = self.output_ids[max(0, start - num_prompt) : max(0, stop - num_prompt)]
        return [*self.prompt_ids[start:stop], *outputs]

    def wants_token(self, block_size: int) -> bool:
        """Whether one more token may follow, by kind, by `max_tokens` and by the context."""
        return self.pooling is None and len(self.output_ids) < self.params.max_tokens and self.num_tokens < block_size

    def finish(self, block_size: int) -> tuple[FinishReason | None, int | None]:
        """Say whether the newest token ends the sequence, and by which of `stop_token_ids`, if by one."""
        newest = self.output_ids[-1] if self.output_ids else None
        if newest in self.ending_ids:
            return "stop", newest if newest in self.params.stop_token_ids else None
        return (None if self.wants_token(block_size) else "length"), None

    def add_pooled(self, values: list[float]) -> None:
        """Take in what one row of a pooled sequence gave."""
        self.pooled = [a + b for a, b in zip(self.pooled, values, strict=True)] if self.pooled else values

    def pooled_values(self) -> list[float]:
        """Read the pooled state, once every token of the prompt has been taken in."""
        return [value / self.num_tokens for value in self.pooled] if self.pooling == "mean" else self.pooled


@dataclass(slots=True, frozen=True)
class Admission:
    """The sequence left the queue for the first time; comes before any of its tokens."""

    uid: str
    queue_s: float
    cached_tokens: int = 0
    """Prompt tokens found in the cache: another sequence has computed them."""


@dataclass(slots=True, frozen=True)
class NewToken:
    """One more token, the end, or both."""

    uid: str
    token_id: int | None
    """None only when `max_tokens` is 0: the prompt was scored and nothing generated."""
    logprob: Logprob | None = None
    prompt_logprobs: list[Logprob | None] | None = None
    """On the first event of a sequence that asked for them, one entry per prompt token; the first is None."""
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None


@dataclass(slots=True, frozen=True)
class Pooled:
    """The end of a sequence that asked for pooling."""

    uid: str
    values: list[float]
    """One pooled hidden state, or what the head made of it."""


@dataclass(slots=True, frozen=True)
class Failure:
    """The sequence ends here without a result."""

    uid: str
    code: FailureCode


StepOutput = Admission | NewToken | Pooled | Failure
