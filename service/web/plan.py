"""What a validated request asks for, in token ids: the settings of its sequences and of what they show."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.grammar import ConstraintSpec
from model.sampling_params import SamplingParams
from service.web.errors import InvalidParameter
from service.web.models import ServedModel
from service.web.output import Echo, OutputOptions
from service.web.prompts import Prompt, check_token_ids
from service.web.protocol.generation import GenerationRequest
from service.web.text import TextOptions


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, ready to be carried out."""

    model: ServedModel
    prompts: Sequence[Prompt]
    params: SamplingParams
    """Of every sequence, but for the seed and the limits, which depend on its prompt."""
    seed: int | None
    n: int
    """Answers to each prompt that the client sees."""
    num_candidates: int
    """Answers to each prompt that are generated: `n`, or more, of which the best are taken."""
    output: OutputOptions
    echoes: Sequence[Echo | None]
    """For each prompt, what goes before its answers."""
    cache_salt: str
    constraint: ConstraintSpec | None
    """What every answer must look like."""
    has_token_limit: bool
    """Whether the client said how long an answer may be."""

    @property
    def num_choices(self) -> int:
        return self.n * len(self.prompts)

    @property
    def num_reserved_tokens(self) -> int:
        """What the request may cost: its prompts, and answers as long as the client allows."""
        num_prompt = sum(len(prompt.token_ids) for prompt in self.prompts)
        num_answer = sum(prompt.max_tokens for prompt in self.prompts) * self.num_candidates
        return num_prompt + (num_answer if self.has_token_limit else 0)

    @property
    def is_ranked(self) -> bool:
        return self.num_candidates > self.n

    def candidates_of(self, prompt: int) -> list[range]:
        """Return, for each sequence of a prompt, the candidates it stands for: greedy ones are all alike."""
        first = prompt * self.num_candidates
        last = first + self.num_candidates
        if self.params.temperature == 0:
            return [range(first, last)]
        return [range(index, index + 1) for index in range(first, last)]

    def params_of(self, prompt: int) -> SamplingParams:
        """Return the settings of a prompt's sequences; without a seed of the client's, with one of their own."""
        max_tokens = self.prompts[prompt].max_tokens
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return replace(
            self.params, max_tokens=max_tokens, min_tokens=min(self.params.min_tokens, max_tokens), seed=seed
        )


def plan_generation(
    request: GenerationRequest,
    model: ServedModel,
    prompts: Sequence[Prompt],
    echoes: Sequence[Echo | None],
    *,
    stream_interval: int = 1,
) -> Plan:
    """Translate the settings of a request. A stream shows `stream_interval` tokens at once.

    Raises:
        InvalidParameter: a token id is not in the vocabulary.
    """
    check_token_ids(request.stop_token_ids, model, "stop_token_ids")
    check_token_ids(request.allowed_token_ids or (), model, "allowed_token_ids")
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
    scores_prompt = [] if request.prompt_logprobs is None else [request.prompt_logprobs]
    if logprobs is not None and any(echo is not None and echo.starts for echo in echoes):
        scores_prompt.append(logprobs)
    is_ranked = request.num_candidates > request.n
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
        allowed_token_ids=None if request.allowed_token_ids is None else tuple(request.allowed_token_ids),
        bad_words=_runs_of(request.bad_words, model),
        logprobs=0 if logprobs is None and is_ranked else logprobs,
        prompt_logprobs=max(scores_prompt, default=None),
    )
    output = OutputOptions(
        text,
        num_logprobs=logprobs,
        num_prompt_logprobs=request.prompt_logprobs,
        keeps_token_ids=request.return_token_ids,
        stops_of_token=stops_of_token,
        continues_text=request.continues_text,
        interval=stream_interval if request.stream else 1,
    )
    constrained = request.constrained
    return Plan(
        model=model,
        prompts=prompts,
        params=params,
        seed=request.seed,
        n=request.n,
        num_candidates=request.num_candidates,
        output=output,
        echoes=echoes,
        cache_salt=request.cache_salt or "",
        has_token_limit=request.token_limit is not None,
        constraint=None if constrained is None else replace(constrained.spec, opens_text=not request.continues_text),
    )


def _runs_of(words: Sequence[str], model: ServedModel) -> tuple[tuple[int, ...], ...]:
    """Encode words as they are at the beginning of a text and inside one."""
    spelled = [spelling for word in words for spelling in (word, " " + word.lstrip())]
    return tuple(dict.fromkeys(tuple(model.tokenizer.encode(spelling)) for spelling in spelled))


def _check_bias(request: GenerationRequest, model: ServedModel) -> None:
    for token_id, _ in request.logit_bias:
        if token_id >= model.vocab_size:
            message = (
                f"Invalid 'logit_bias': token id {token_id} is not in the vocabulary, "
                f"which has {model.vocab_size} tokens."
            )
            raise InvalidParameter("invalid_logit_bias", "logit_bias", message)
