"""Everything that processes say to each other, as small typed records (msgpack on the wire, never pickle).

HTTP process -> worker:   Generate | Embed | Classify | Cancel | LoadModel | UnloadModel
worker -> HTTP process:   StepEvents | WorkerUp | ModelUp | ModelFailed
main -> HTTP process:     WorkerDown | Drain

A worker knows token ids only; text, templates and stop strings stay in the HTTP process. `model` is never what clients
call a model: it names one loaded version of one, for ever, so that two versions can run side by side.
"""

from typing import Literal

import msgspec

from model.grammar import ConstraintSpec
from model.sampling_params import SamplingParams

FinishReason = Literal["stop", "length"]
FailureCode = Literal["queue_timeout", "timeout", "internal_error", "invalid_constraint"]


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
    cache_salt: str = ""
    """Sequences share cached prefixes only with those of the same salt."""
    constraint: ConstraintSpec | None = None


class Embed(msgspec.Struct, tag="embed", frozen=True):
    """Read one text and return its state after the last norm: the mean over all tokens, or that of the last one."""

    uid: str
    consumer: int
    model: str
    prompt_ids: list[int]
    pooling: Literal["mean", "last"]
    deadline_s: float


class Classify(msgspec.Struct, tag="classify", frozen=True):
    """Score one text, with a classifier of its own or with a head on the backbone of a model that generates."""

    uid: str
    consumer: int
    model: str
    prompt_ids: list[int]
    deadline_s: float


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Nobody waits for these sequences any more. Unknown uids are fine: they have just ended."""

    uids: list[str]


class LoadModel(msgspec.Struct, tag="load_model", frozen=True):
    """Load a version of a model beside those that run; answered by `ModelUp` or `ModelFailed`."""

    consumer: int
    model: str
    served_id: str
    """What clients call it; several versions may share it. For metrics and logs."""
    path: str
    tokenizer_path: str = ""
    """Where its tokenizer is, for constraints on texts: an adapter's may be its base's."""
    vocab_size: int = 0
    """Of the model, which may have more rows than its tokenizer has tokens."""
    end_ids: tuple[int, ...] = ()
    """The model's own end tokens."""
    base: str | None = None
    """For an adapter: the loaded version whose weights it runs on."""


class UnloadModel(msgspec.Struct, tag="unload_model", frozen=True):
    """Free a version that nobody uses any more; adapters go before their base. An unknown one is fine."""

    model: str


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


class Embedded(msgspec.Struct, tag="embedded", frozen=True):
    uid: str
    values: list[float]


class Classified(msgspec.Struct, tag="classified", frozen=True):
    uid: str
    logits: list[float]


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The sequence ends here without a result."""

    uid: str
    code: FailureCode


Event = Admitted | Token | Embedded | Classified | Failed


class StepEvents(msgspec.Struct, tag="step_events", frozen=True):
    """All that one engine step has for one HTTP process: one message per step, whatever the batch size."""

    events: list[Event]


class ModelUp(msgspec.Struct, tag="model_up", frozen=True):
    """A version is loaded and takes requests."""

    model: str


class ModelFailed(msgspec.Struct, tag="model_failed", frozen=True):
    """A version cannot be loaded; what runs is not affected."""

    model: str
    reason: str
    """For whoever asked for it: a sentence about the checkpoint or the limits."""


class WorkerUp(msgspec.Struct, tag="worker_up", frozen=True):
    """A worker is ready: its loop runs."""

    worker: str
    pid: int
    models: tuple[str, ...] = ()
    """The versions it has: those it was made with in its first life, none after a restart. What else should be there,
    the HTTP process tells it to load."""


class WorkerDown(msgspec.Struct, tag="worker_down", frozen=True):
    """A worker died; everything it was doing is lost. Another process says so than the one that told of its birth, so
    this may arrive after its successor's `WorkerUp`."""

    worker: str
    pid: int


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """The service is shutting down."""

    phase: Literal["unready", "reject", "abort"]
    """unready: readiness is off, work still accepted. reject: new work is refused. abort: fail what still runs."""


ToWorker = Generate | Embed | Classify | Cancel | LoadModel | UnloadModel
ToHttp = StepEvents | WorkerUp | ModelUp | ModelFailed | WorkerDown | Drain
