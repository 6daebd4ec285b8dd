"""Everything that processes say to each other, as small typed records (msgpack on the wire, never pickle).

HTTP process -> worker:   Generate | Classify | Cancel
worker -> HTTP process:   StepEvents | WorkerUp
main -> HTTP process:     WorkerDown | Drain

A worker knows token ids only; text, templates and stop strings stay in the HTTP process.
"""

from typing import Literal

import msgspec

from model.sampling_params import SamplingParams

FinishReason = Literal["stop", "length"]
FailureCode = Literal["queue_timeout", "timeout", "internal_error"]


class Generate(msgspec.Struct, tag="generate", frozen=True):
    """Generate one sequence. A request with several choices sends one of these for each."""

    uid: str
    """Unique per sequence, for ever."""
    consumer: int
    """Index of the HTTP process that wants the events."""
    model: str
    prompt_ids: list[int]
    params: SamplingParams
    choice: int
    """Index among the choices of one prompt; part of the noise key, so that choices differ."""
    queue_deadline_s: float
    """On the machine-wide monotonic clock (time.monotonic); past it, a request not yet admitted fails."""
    deadline_s: float
    """Past it, the sequence fails wherever it is."""


class Classify(msgspec.Struct, tag="classify", frozen=True):
    """Score one text."""

    uid: str
    consumer: int
    model: str
    prompt_ids: list[int]
    deadline_s: float


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Nobody waits for these sequences any more. Unknown uids are fine: they have just ended."""

    uids: list[str]


class TokenLogprob(msgspec.Struct, array_like=True, frozen=True):
    """Log-softmax of the raw logits at one token, and the most likely alternatives, best first."""

    logprob: float
    top: list[tuple[int, float]]


class Admitted(msgspec.Struct, tag="admitted", frozen=True):
    """The sequence left the queue; sent once, before any of its tokens."""

    uid: str
    queue_s: float
    cached_tokens: int


class Token(msgspec.Struct, tag="token", frozen=True):
    """One more token, the end, or both."""

    uid: str
    token_id: int | None
    """None only when a sequence ends without a further token (`max_tokens` 0)."""
    logprob: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    """With the first event of a sequence that asked for them; the first prompt token's entry is None."""
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    """The entry of `stop_token_ids` that ended the sequence; None when the model's own end token did."""


class Classified(msgspec.Struct, tag="classified", frozen=True):
    uid: str
    logits: list[float]


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The sequence ends here without a result."""

    uid: str
    code: FailureCode


Event = Admitted | Token | Classified | Failed


class StepEvents(msgspec.Struct, tag="step_events", frozen=True):
    """All that one engine step has for one HTTP process: one message per step, whatever the batch size."""

    events: list[Event]


class WorkerUp(msgspec.Struct, tag="worker_up", frozen=True):
    """A worker is ready: its weights are loaded and its loop runs."""

    worker: str
    pid: int


class WorkerDown(msgspec.Struct, tag="worker_down", frozen=True):
    """A worker died; everything it was doing is lost."""

    worker: str


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """The service is shutting down."""

    phase: Literal["unready", "reject", "abort"]
    """unready: readiness is off, work still accepted. reject: new work is refused. abort: fail what still runs."""


ToWorker = Generate | Classify | Cancel
ToHttp = StepEvents | WorkerUp | WorkerDown | Drain
