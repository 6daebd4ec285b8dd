"""One generation request at work: its sequences at the worker, and what its choices gain as events arrive.

Completions and chat differ only in how they come to a `Plan` and in how they show deltas; everything between is here.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.types import Receive

from service import metrics
from service.host.messages import Admitted, Event, Generate, Token
from service.settings import ServiceSettings
from service.web.errors import ClientGone
from service.web.frontend import Frontend
from service.web.intake import timeout_of
from service.web.middleware import exchange_of
from service.web.output import Delta, SequenceOutput
from service.web.plan import Plan
from service.web.quotas import Quota
from service.web.timings import Timings

Failure = Literal["abort", "error"]
"""How a request can end without an answer: the client left, or something went wrong."""

IndexedDelta = tuple[int, Delta]
"""Index of a choice, and what it gains."""


@dataclass(slots=True)
class _Sequence:
    """One sequence and the choices that show it."""

    indices: range
    """The candidates it stands for."""
    prompt: int
    output: SequenceOutput
    logprob_sum: float = 0.0
    cached_tokens: int = 0
    last_token_s: float | None = None


class Generation:
    """A plan being carried out."""

    def __init__(
        self, plan: Plan, *, consumer: int, queue_timeout_s: float, timeout_s: float, quota: Quota | None = None
    ) -> None:
        """Draw up the messages for the worker; nothing is sent yet. Tokens are counted on `quota`."""
        self.plan = plan
        self._quota = quota or Quota()
        self.timings = Timings()
        self.messages: list[Generate] = []
        self._sequences: dict[str, _Sequence] = {}
        self._finish_reasons: set[str] = set()
        self._stopped: list[str] = []
        self.deadline_s = self.timings.started_s + timeout_s
        queue_deadline_s = min(self.timings.started_s + queue_timeout_s, self.deadline_s)
        for number, prompt in enumerate(plan.prompts):
            params = plan.params_of(number)
            for choice, indices in enumerate(plan.candidates_of(number)):
                message = Generate(
                    uid=uuid.uuid4().hex,
                    consumer=consumer,
                    model=plan.model.version,
                    prompt_ids=prompt.token_ids,
                    params=params,
                    choice=choice,
                    queue_deadline_s=queue_deadline_s,
                    deadline_s=self.deadline_s,
                    cache_salt=plan.cache_salt,
                    constraint=plan.constraint,
                )
                output = SequenceOutput(plan.model.tokenizer, prompt.token_ids, plan.output, plan.echoes[number])
                self.messages.append(message)
                self._sequences[message.uid] = _Sequence(indices, number, output)

    @property
    def is_admitted(self) -> bool:
        """Whether a sequence has left the queue."""
        return self.timings.admitted_s is not None

    @property
    def is_finished(self) -> bool:
        return all(sequence.output.is_finished for sequence in self._sequences.values())

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Set the tokens aside that it asks for, and count those it had at the end.

        Raises:
            RateLimited: the client's key may not have so many now.
        """
        reserved = self.plan.num_reserved_tokens
        self._quota.reserve_tokens(reserved)
        try:
            yield
        finally:
            self._quota.settle_tokens(reserved, self.usage()["total_tokens"] if self.is_admitted else 0)

    def take(self, events: Iterable[Event]) -> list[IndexedDelta]:
        """Turn what arrived into deltas, in order of arrival."""
        now_s = time.monotonic()
        deltas: list[IndexedDelta] = []
        for event in events:
            sequence = self._sequences[event.uid]
            if isinstance(event, Token):
                self._take_token(event, sequence, now_s, deltas)
            elif isinstance(event, Admitted):
                sequence.cached_tokens = event.cached_tokens
                self.timings.admit(event.queue_s)
        return deltas

    def take_stopped(self) -> list[str]:
        """Return, once, the sequences that a stop string has ended and the worker still continues."""
        stopped, self._stopped = self._stopped, []
        return stopped

    def shown_candidates(self) -> list[int]:
        """Return the candidate behind each choice: every one, or the best of each prompt, the first of equals."""
        num_candidates, n = self.plan.num_candidates, self.plan.n
        if not self.plan.is_ranked:
            return list(range(self.plan.num_choices))
        means = {
            index: sequence.logprob_sum / max(1, sequence.output.num_tokens)
            for sequence in self._sequences.values()
            for index in sequence.indices
        }
        firsts = range(0, num_candidates * len(self.plan.prompts), num_candidates)
        ranked = [sorted(range(first, first + num_candidates), key=lambda i: -means[i]) for first in firsts]
        return [index for ranking in ranked for index in ranking[:n]]

    def usage(self) -> dict[str, Any]:
        """Count tokens so far: each prompt once, every generated token of every candidate."""
        prompt_tokens = sum(len(prompt.token_ids) for prompt in self.plan.prompts)
        sequences = self._sequences.values()
        completion_tokens = sum(sequence.output.num_tokens * len(sequence.indices) for sequence in sequences)
        cached_tokens = {sequence.prompt: sequence.cached_tokens for sequence in reversed(sequences)}
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(cached_tokens.values())},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def facts(self) -> dict[str, Any]:
        """Return what the access log says about the request."""
        usage, ttft_s = self.usage(), self.timings.ttft_s
        return {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "finish": ",".join(sorted(self._finish_reasons)) or None,
            "queue_ms": round(1000 * self.timings.queue_s, 1),
            "ttft_ms": None if ttft_s is None else round(1000 * ttft_s, 1),
        }

    def record(self, failure: Failure | None) -> None:
        """Write the request's metrics; those that compare whole answers leave failures out."""
        model_id, usage = self.plan.model.id, self.usage()
        reason = failure or ("length" if "length" in self._finish_reasons else "stop")
        metrics.REQUEST_SUCCESS.labels(model_id, metrics.ENGINE, reason).inc()
        if failure:
            return
        metrics.E2E.observe(model_id, time.monotonic() - self.timings.started_s)
        metrics.REQUEST_PROMPT_TOKENS.labels(model_id, metrics.ENGINE).observe(usage["prompt_tokens"])
        metrics.REQUEST_GENERATION_TOKENS.labels(model_id, metrics.ENGINE).observe(usage["completion_tokens"])
        metrics.REQUEST_PARAMS_N.labels(model_id, metrics.ENGINE).observe(self.plan.n)
        metrics.REQUEST_PARAMS_MAX_TOKENS.labels(model_id, metrics.ENGINE).observe(self.plan.prompts[0].max_tokens)
        most_tokens = max(sequence.output.num_tokens for sequence in self._sequences.values())
        metrics.REQUEST_MAX_GENERATION_TOKENS.labels(model_id, metrics.ENGINE).observe(most_tokens)
        if self.timings.decode_s is not None and most_tokens > 1:
            metrics.TIME_PER_OUTPUT_TOKEN.observe(model_id, self.timings.decode_s / (most_tokens - 1))

    def _take_token(self, event: Token, sequence: _Sequence, now_s: float, deltas: list[IndexedDelta]) -> None:
        output = sequence.output
        if output.is_finished:
            return
        self.timings.token(self.plan.model.id, now_s, sequence.last_token_s)
        sequence.last_token_s = now_s
        if event.logprob is not None:
            sequence.logprob_sum += event.logprob.logprob
        shown = [output.take_prompt_logprobs(event), output.take_echo(event), output.push(event)]
        deltas.extend((index, delta) for delta in shown if delta is not None for index in sequence.indices)
        if output.is_finished:
            assert shown[-1] is not None
            assert shown[-1].finish_reason is not None
            self._finish_reasons.add(shown[-1].finish_reason)
            if event.finish_reason is None:
                self._stopped.append(event.uid)


def begin(request: Request, plan: Plan, frontend: Frontend, settings: ServiceSettings) -> Generation:
    """Draw up what a request's plan asks for, with the request's own deadline and quota; its log line tells of it."""
    exchange = exchange_of(request.scope)
    generation = Generation(
        plan,
        consumer=frontend.consumer,
        queue_timeout_s=settings.queue_timeout_s,
        timeout_s=timeout_of(request, settings),
        quota=exchange.key.quota,
    )
    exchange.describe = generation.facts
    return generation


async def batches(
    generation: Generation, frontend: Frontend, receive: Receive, *, silence_s: float | None = None
) -> AsyncGenerator[list[IndexedDelta]]:
    """Carry a generation out, and yield deltas as they come; an empty batch when admitted and after `silence_s`.

    However the loop over it ends, and whenever the client leaves, the sequences leave the worker.

    Raises:
        ApiError: the request was refused, or failed.
        ClientGone: nobody waits for the answer any more.
    """
    with generation.charged(), frontend.call(generation.plan.model, generation.messages) as call:
        failure: Failure | None = "error"
        try:
            async with call.watching(receive):
                while not generation.is_finished:
                    deltas = generation.take(await call.receive(silence_s))
                    generation.timings.arrived_s = call.oldest_s
                    frontend.cancel(call, generation.take_stopped())
                    yield deltas
            failure = None
        except (ClientGone, GeneratorExit, asyncio.CancelledError):
            failure = "abort"
            raise
        finally:
            generation.record(failure)
