"""The trade of the generation worker: messages to engine requests, engine steps to events.

Several models, one engine each, stepped in turn while they have work. It knows no tensors: those are the engine's.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from service.engine.engine import Engine
from service.engine.request import Admission, Failure, Logprob, NewToken, Request, StepOutput
from service.host.loop import IDLE_TICK_S, Outbox
from service.host.messages import Admitted, Cancel, Event, Failed, Generate, Token, TokenLogprob, ToWorker
from service.host.tally import Tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A served model inside the worker."""

    engine: Engine
    end_ids: tuple[int, ...]
    """The model's own end tokens."""


class GenerationTrade:
    """Continuous batching as a trade."""

    def __init__(self, models: Mapping[str, EngineModel]) -> None:
        """`models` is by served id."""
        self._models = models
        self._tallies = {name: Tally(name) for name in models}
        self._calls: dict[str, Generate] = {}

    @property
    def patience_s(self) -> float:
        has_work = any(model.engine.has_work for model in self._models.values())
        return 0.0 if has_work else IDLE_TICK_S

    def take(self, message: ToWorker, outbox: Outbox) -> None:
        """Queue a sequence with its engine, or forget some."""
        if isinstance(message, Cancel):
            for uid in message.uids:
                self._cancel(uid)
        elif isinstance(message, Generate):
            self._add(message, outbox)

    def work(self, outbox: Outbox) -> None:
        """Step every engine that has something to do."""
        for name, model in self._models.items():
            if model.engine.has_work:
                self._step(name, model.engine, outbox)
            self._tallies[name].take_stock(model.engine)

    def _add(self, message: Generate, outbox: Outbox) -> None:
        try:
            model = self._models[message.model]
            model.engine.add(
                Request(
                    uid=message.uid,
                    prompt_ids=message.prompt_ids,
                    params=message.params,
                    choice=message.choice,
                    end_ids=model.end_ids,
                    arrival_s=time.monotonic(),
                    queue_deadline_s=message.queue_deadline_s,
                    deadline_s=message.deadline_s,
                )
            )
        except (KeyError, ValueError):
            logger.exception("sequence %s cannot be generated", message.uid)
            outbox.put(message.consumer, Failed(message.uid, "internal_error"))
        else:
            self._calls[message.uid] = message
            self._tallies[message.model].queued(message.uid, len(message.prompt_ids))

    def _cancel(self, uid: str) -> None:
        call = self._calls.pop(uid, None)
        if call is not None:
            self._models[call.model].engine.abort(uid)
            self._tallies[call.model].left(uid)

    def _step(self, name: str, engine: Engine, outbox: Outbox) -> None:
        started_s = time.perf_counter()
        outputs = engine.step()
        self._tallies[name].stepped(engine.last_step, time.perf_counter() - started_s, outputs)
        for output in outputs:
            self._report(output, outbox)

    def _report(self, output: StepOutput, outbox: Outbox) -> None:
        outbox.put(self._calls[output.uid].consumer, to_event(output))
        if isinstance(output, Failure) or (isinstance(output, NewToken) and output.finish_reason is not None):
            del self._calls[output.uid]


def to_event(output: StepOutput) -> Event:
    """Translate what an engine says into what crosses the wire."""
    if isinstance(output, Admission):
        return Admitted(output.uid, output.queue_s, output.cached_tokens)
    if isinstance(output, Failure):
        return Failed(output.uid, output.code)
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
