"""One generation request at work: its sequences at the worker, and what its choices gain as events arrive.

Completions and chat differ only in how they come to a `Plan` and in how they show deltas; everything between is here.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive

from model.sampling_params import SamplingParams
from service import metrics
from service.host.messages import Admitted, Event, Generate, Token
from service.web.errors import ClientGone, InvalidParameter
from service.web.frontend import Frontend
from service.web.models import ServedModel
from service.web.output import Delta, Echo, OutputOptions, SequenceOutput
from service.web.prompts import Prompt, check_token_ids
from service.web.protocol import GenerationRequest
from service.web.text import TextOptions

IndexedDelta = tuple[int, Delta]
"""Index of a choice, and what it gains."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a validated request asks for, in token ids."""

    model: ServedModel
    prompts: Sequence[Prompt]
    params: SamplingParams
    """Of every sequence, but for the seed and the limits, which depend on its prompt."""
    seed: int | None
    n: int
    output: OutputOptions
    echoes: Sequence[Echo | None]
    """For each prompt, what goes before its answers."""


def plan_generation(
    request: GenerationRequest, model: ServedModel, prompts: Sequence[Prompt], echoes: Sequence[Echo | None]
) -> Plan:
    """Translate the settings of a request.

    Raises:
        InvalidParameter: a token id in `stop_token_ids` or `logit_bias` is not in the vocabulary.
    """
    check_token_ids(request.stop_token_ids, model, "stop_token_ids")
    _check_bias(request, model)
    special = model.tokenizer.special_tokens
    stops_of_token = {special[stop]: stop for stop in request.stop if stop in special}
    text = TextOptions(
        stops=request.stop,
        keep_stop=request.include_stop_str_in_output,
        skip_special=request.skip_special_tokens,
        min_tokens=request.min_tokens,
    )
    logprobs = request.wanted_logprobs
    params = SamplingParams(
        min_tokens=request.min_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=min(max(request.top_k, 0), model.vocab_size),
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        stop_token_ids=tuple(dict.fromkeys([*request.stop_token_ids, *stops_of_token])),
        ignore_eos=request.ignore_eos,
        logprobs=logprobs,
        prompt_logprobs=logprobs if any(echo is not None and echo.starts for echo in echoes) else None,
    )
    output = OutputOptions(text, logprobs is not None, request.return_token_ids, stops_of_token)
    return Plan(model, prompts, params, request.seed, request.n, output, echoes)


def _check_bias(request: GenerationRequest, model: ServedModel) -> None:
    for token_id, _ in request.logit_bias:
        if token_id >= model.vocab_size:
            message = (
                f"Invalid 'logit_bias': token id {token_id} is not in the vocabulary, "
                f"which has {model.vocab_size} tokens."
            )
            raise InvalidParameter("invalid_logit_bias", "logit_bias", message)


@dataclass(slots=True)
class _Sequence:
    """One sequence and the choices that show it."""

    indices: range
    prompt: int
    output: SequenceOutput
    cached_tokens: int = 0
    last_token_s: float = 0.0


@dataclass(slots=True)
class Timings:
    """When what happened, on the monotonic clock."""

    started_s: float
    queue_s: float = 0.0
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    def server_timing(self) -> str:
        """Return the value of the `server-timing` header: phases in milliseconds."""
        admitted_s = self.started_s if self.admitted_s is None else self.admitted_s
        first_s = admitted_s if self.first_token_s is None else self.first_token_s
        last_s = first_s if self.last_token_s is None else self.last_token_s
        phases = {"queue": self.queue_s, "prefill": first_s - admitted_s, "decode": last_s - first_s}
        return ", ".join(f"{name};dur={1000 * duration_s:.1f}" for name, duration_s in phases.items())


class Generation:
    """A plan being carried out."""

    def __init__(self, plan: Plan, *, consumer: int, queue_timeout_s: float, timeout_s: float) -> None:
        """Draw up the messages for the worker; nothing is sent yet."""
        self.plan = plan
        self.timings = Timings(time.monotonic())
        self._sequences: dict[str, _Sequence] = {}
        self._finish_reasons: set[str] = set()
        self._stopped: list[str] = []
        self.messages: list[Generate] = []
        deadline_s = self.timings.started_s + timeout_s
        queue_deadline_s = min(self.timings.started_s + queue_timeout_s, deadline_s)
        for number, prompt in enumerate(plan.prompts):
            seed = secrets.randbits(63) if plan.seed is None else plan.seed
            min_tokens = min(plan.params.min_tokens, prompt.max_tokens)
            params = replace(plan.params, max_tokens=prompt.max_tokens, min_tokens=min_tokens, seed=seed)
            for choice, indices in enumerate(self._choices_of(number)):
                output = SequenceOutput(plan.model.tokenizer, prompt.token_ids, plan.output, plan.echoes[number])
                uid = uuid.uuid4().hex
                self._sequences[uid] = _Sequence(indices, number, output)
                self.messages.append(
                    Generate(
                        uid=uid,
                        consumer=consumer,
                        model=plan.model.id,
                        prompt_ids=prompt.token_ids,
                        params=params,
                        choice=choice,
                        queue_deadline_s=queue_deadline_s,
                        deadline_s=deadline_s,
                    )
                )

    @property
    def num_choices(self) -> int:
        return self.plan.n * len(self.plan.prompts)

    @property
    def is_admitted(self) -> bool:
        """Whether a sequence has left the queue."""
        return self.timings.admitted_s is not None

    @property
    def is_finished(self) -> bool:
        return all(sequence.output.is_finished for sequence in self._sequences.values())

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
                self.timings.queue_s = max(self.timings.queue_s, event.queue_s)
                self.timings.admitted_s = self.timings.admitted_s or self.timings.started_s + event.queue_s
        return deltas

    def take_stopped(self) -> list[str]:
        """Return, once, the sequences that a stop string has ended and the worker still continues."""
        stopped, self._stopped = self._stopped, []
        return stopped

    def usage(self) -> dict[str, Any]:
        """Count tokens so far: each prompt once, every generated token of every choice."""
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
        usage = self.usage()
        first_s = self.timings.first_token_s
        return {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "finish": ",".join(sorted(self._finish_reasons)) or None,
            "queue_ms": round(1000 * self.timings.queue_s, 1),
            "ttft_ms": None if first_s is None else round(1000 * (first_s - self.timings.started_s), 1),
        }

    def record(self, outcome: str | None = None) -> None:
        """Write the request's metrics; `outcome` tells how it failed, if it did."""
        model_id, usage = self.plan.model.id, self.usage()
        reason = outcome or ("length" if "length" in self._finish_reasons else "stop")
        metrics.REQUEST_SUCCESS.labels(model_id, metrics.ENGINE, reason).inc()
        metrics.E2E.observe(model_id, time.monotonic() - self.timings.started_s)
        metrics.REQUEST_PROMPT_TOKENS.labels(model_id, metrics.ENGINE).observe(usage["prompt_tokens"])
        metrics.REQUEST_GENERATION_TOKENS.labels(model_id, metrics.ENGINE).observe(usage["completion_tokens"])
        metrics.REQUEST_PARAMS_N.labels(model_id, metrics.ENGINE).observe(self.plan.n)
        metrics.REQUEST_PARAMS_MAX_TOKENS.labels(model_id, metrics.ENGINE).observe(self.plan.prompts[0].max_tokens)
        first_s, last_s = self.timings.first_token_s, self.timings.last_token_s
        most_tokens = max(sequence.output.num_tokens for sequence in self._sequences.values())
        if first_s is not None and last_s is not None and most_tokens > 1:
            metrics.TIME_PER_OUTPUT_TOKEN.observe(model_id, (last_s - first_s) / (most_tokens - 1))

    def _choices_of(self, prompt: int) -> list[range]:
        """Return, for each sequence of a prompt, the choices that show it: greedy choices are all alike."""
        first, n = prompt * self.plan.n, self.plan.n
        if self.plan.params.temperature == 0:
            return [range(first, first + n)]
        return [range(index, index + 1) for index in range(first, first + n)]

    def _take_token(self, event: Token, sequence: _Sequence, now_s: float, deltas: list[IndexedDelta]) -> None:
        output = sequence.output
        if output.is_finished:
            return
        self._time_token(sequence, now_s)
        shown = [output.take_echo(event), output.push(event)]
        deltas.extend((index, delta) for delta in shown if delta is not None for index in sequence.indices)
        if output.is_finished:
            assert shown[1] is not None
            assert shown[1].finish_reason is not None
            self._finish_reasons.add(shown[1].finish_reason)
            if event.finish_reason is None:
                self._stopped.append(event.uid)

    def _time_token(self, sequence: _Sequence, now_s: float) -> None:
        model_id = self.plan.model.id
        if self.timings.first_token_s is None:
            self.timings.first_token_s = now_s
            metrics.TTFT.observe(model_id, now_s - self.timings.started_s)
        if sequence.last_token_s:
            metrics.ITL.observe(model_id, now_s - sequence.last_token_s)
        self.timings.last_token_s = sequence.last_token_s = now_s


async def batches(
    generation: Generation, frontend: Frontend, receive: Receive, *, silence_s: float | None = None
) -> AsyncGenerator[list[IndexedDelta]]:
    """Carry a generation out, and yield deltas as they come; an empty batch when admitted and after `silence_s`.

    However the loop over it ends, and whenever the client leaves, the sequences leave the worker.

    Raises:
        ApiError: the request was refused, or failed.
        ClientGone: nobody waits for the answer any more.
    """
    outcome: str | None = "error"
    try:
        with frontend.call(generation.plan.model.worker, generation.messages) as call:
            async with call.watching(receive):
                while not generation.is_finished:
                    deltas = generation.take(await call.receive(silence_s))
                    frontend.cancel(call, generation.take_stopped())
                    yield deltas
        outcome = None
    except (ClientGone, GeneratorExit, asyncio.CancelledError):
        outcome = "abort"
        raise
    finally:
        generation.record(outcome)
