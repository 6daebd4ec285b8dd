"""The trade of the generation worker: messages to engine requests, engine steps to events.

Several models: those with weights of their own have an engine each, stepped in turn while they have work; adapters are
requests of their base's engine. It knows no tensors: those are the engine's.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from model.constraint import Constraint, ConstraintFactory
from model.tokenizer import Tokenizer
from service import metrics
from service.engine.engine import Engine
from service.engine.request import Admission, Failure, Logprob, NewToken, Pooled, Request, StepOutput
from service.host.constraints import POLL_S, Compiling
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import (
    Admitted,
    Cancel,
    Classified,
    Classify,
    Embed,
    Embedded,
    Event,
    Failed,
    Generate,
    LoadModel,
    Token,
    TokenLogprob,
    ToWorker,
)
from service.host.tally import EngineTally, SequenceTally

logger = logging.getLogger(__name__)

Call = Generate | Embed | Classify
"""What becomes a sequence in an engine."""


class Adapter(Protocol):
    """What makes another model of an engine's."""

    @property
    def name(self) -> str:
        """What requests call it."""

    def install(self) -> None:
        """Let the engine's requests ask for it; between two steps."""

    def remove(self) -> None:
        """Forget it; between two steps."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A served model inside the worker."""

    engine: Engine
    adapter: Adapter | None = None
    """None for the model that the engine was made for."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A model at work."""

    message: LoadModel
    model: EngineModel
    tally: SequenceTally
    constraints: ConstraintFactory
    """Makes what decides on the tokens that may follow."""

    @property
    def adapter(self) -> str | None:
        return None if self.model.adapter is None else self.model.adapter.name


class GenerationTrade:
    """Continuous batching as a trade."""

    def __init__(self, cache_dtype: str = "float32") -> None:
        """`cache_dtype` is what the engines' caches hold."""
        self._cache_dtype = cache_dtype
        self._places: dict[str, _Place] = {}
        self._engines: dict[str, tuple[Engine, EngineTally]] = {}
        self._tallies: dict[str, SequenceTally] = {}
        self._calls: dict[str, Call] = {}
        self._compiling = Compiling()

    @property
    def patience_s(self) -> float:
        if any(engine.has_work for engine, _ in self._engines.values()):
            return 0.0
        return POLL_S if self._compiling else IDLE_TICK_S

    @property
    def num_engines(self) -> int:
        """How many models have weights of their own."""
        return len(self._engines)

    def add(self, message: LoadModel, model: EngineModel) -> None:
        """Take requests for a model from now on."""
        if model.adapter is None:
            tally = EngineTally(message.served_id, model.engine.scheduler.pool, self._cache_dtype)
            tally.show_cache()
            self._engines[message.model] = (model.engine, tally)
        else:
            model.adapter.install()
        sequences = self._tallies.setdefault(message.served_id, SequenceTally(message.served_id))
        load_tokenizer = partial(Tokenizer.from_directory, Path(message.tokenizer_path))
        constraints = ConstraintFactory(load_tokenizer, vocab_size=message.vocab_size, end_ids=message.end_ids)
        self._places[message.model] = _Place(message, model, sequences, constraints)

    def remove(self, name: str, outbox: Outbox) -> None:
        """Forget a model; what it still works on fails. An unknown one is fine."""
        place = self._places.get(name)
        if place is None:
            return
        for uid in [uid for uid, call in self._calls.items() if call.model == name]:
            outbox.put(self._calls[uid].consumer, Failed(uid, "internal_error"))
            self._cancel(uid)
        self._take_stock()
        del self._places[name]
        if place.model.adapter is not None:
            place.model.adapter.remove()
        else:
            self._engines.pop(name)[1].show_cache(is_there=False)
            for _, tally in self._engines.values():
                tally.show_cache()  # one that looks alike may be its successor's
        if all(other.message.served_id != place.message.served_id for other in self._places.values()):
            metrics.MODEL_LOAD_SECONDS.labels(place.message.served_id).set(0)

    def model(self, name: str) -> EngineModel:
        """Look a model up.

        Raises:
            KeyError: there is none of this name.
        """
        return self._places[name].model

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Queue a sequence with its engine, or forget some."""
        if isinstance(message, Cancel):
            for uid in message.uids:
                self._cancel(uid)
        elif isinstance(message, Generate) and message.constraint is not None and message.model in self._places:
            place = self._places[message.model]
            self._compiling.begin(message, place.constraints, place.message.served_id)
        elif isinstance(message, Generate | Embed | Classify):
            self._add(message, outbox, time.monotonic())

    def work(self, outbox: Outbox) -> None:
        """Step every engine that has something to do."""
        for message, arrival_s, outcome in self._compiling.take_ready():
            if isinstance(outcome, Constraint):
                self._add(message, outbox, arrival_s, outcome)
            else:
                outbox.put(message.consumer, Failed(message.uid, outcome))
        for engine, tally in self._engines.values():
            if engine.has_work:
                self._step(engine, tally, outbox)
        self._take_stock()

    def _add(self, message: Call, outbox: Outbox, arrival_s: float, constraint: Constraint | None = None) -> None:
        try:
            place = self._places[message.model]
            request = to_request(message, place.message.end_ids, place.adapter)
            request.arrival_s, request.constraint = arrival_s, constraint
            place.model.engine.add(request)
        except (KeyError, ValueError):
            logger.exception("sequence %s cannot be computed", message.uid)
            outbox.put(message.consumer, Failed(message.uid, "internal_error"))
        else:
            self._calls[message.uid] = message
            place.tally.queued(message.uid, len(message.prompt_ids))

    def _cancel(self, uid: str) -> None:
        self._compiling.cancel(uid)
        call = self._calls.pop(uid, None)
        if call is not None:
            place = self._places[call.model]
            place.model.engine.abort(uid)
            place.tally.left(uid)

    def _step(self, engine: Engine, tally: EngineTally, outbox: Outbox) -> None:
        started_s = time.perf_counter()
        outputs = engine.step()
        tally.stepped(engine, time.perf_counter() - started_s)
        for output in outputs:
            self._report(output, outbox)

    def _report(self, output: StepOutput, outbox: Outbox) -> None:
        call = self._calls[output.uid]
        place = self._places[call.model]
        if isinstance(output, Admission):
            place.tally.admitted(output)
        elif isinstance(output, NewToken):
            place.tally.moved_on(output)
        elif isinstance(output, Pooled) and isinstance(call, Classify):
            metrics.CLASSIFY_ITEMS.labels(place.message.served_id, metrics.ENGINE).inc()
        outbox.put(call.consumer, to_event(output, call))
        if isinstance(output, Failure | Pooled) or (isinstance(output, NewToken) and output.finish_reason is not None):
            del self._calls[output.uid]
            place.tally.left(output.uid)

    def _take_stock(self) -> None:
        for engine, engine_tally in self._engines.values():
            engine_tally.take_stock(engine)
        for tally in self._tallies.values():
            tally.take_stock()


def to_request(message: Call, end_ids: tuple[int, ...], adapter: str | None) -> Request:
    """Translate what crossed the wire into what an engine runs."""
    request = Request(
        uid=message.uid,
        prompt_ids=message.prompt_ids,
        end_ids=end_ids,
        deadline_s=message.deadline_s,
        adapter=adapter,
    )
    if isinstance(message, Generate):
        request.params = message.params
        request.choice = message.choice
        request.queue_deadline_s = message.queue_deadline_s
        request.cache_salt = message.cache_salt
    elif isinstance(message, Embed):
        request.queue_deadline_s = message.deadline_s
        request.pooling = message.pooling
    else:
        request.queue_deadline_s = message.deadline_s
        request.pooling, request.head = "last", adapter
    return request


def to_event(output: StepOutput, call: Call) -> Event:
    """Translate what an engine says into what crosses the wire."""
    if isinstance(output, Admission):
        return Admitted(output.uid, output.queue_s, output.cached_tokens)
    if isinstance(output, Failure):
        return Failed(output.uid, output.code)
    if isinstance(output, Pooled):
        return (Classified if isinstance(call, Classify) else Embedded)(output.uid, output.values)
    prompt_logprobs = output.prompt_logprobs
    return Token(
        uid=output.uid,
        token_id=output.token_id,
        logprob=_to_wire(output.logprob),
        prompt_logprobs=None if prompt_logprobs is None else [_to_wire(logprob) for logprob in prompt_logprobs],
        finish_reason=output.finish_reason,
        stop_token_id=output.stop_token_id,
    )


def _to_wire(logprob: Logprob | None) -> TokenLogprob | None:
    return None if logprob is None else TokenLogprob(logprob.logprob, logprob.top)
