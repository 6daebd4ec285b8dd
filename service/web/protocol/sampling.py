"""How tokens are chosen and reported: the fields that completions and chat share, OpenAI's first, then extensions."""

from typing import Annotated, Any

from pydantic import Field

from service.web.constraints import PlainChoice, PlainRegex, PlainSchema, ResponseFormat, StructuredOutputs
from service.web.fields import (
    AllowedTokenIds,
    AtMostSetting,
    BadWords,
    Body,
    Int,
    LogitBias,
    Penalty,
    Probability,
    Refused,
    RefusedNumber,
    RefusedSwitch,
    Seed,
    Side,
    Stops,
    StopTokenIds,
    Temperature,
    Truncation,
    UnsupportedUnless,
)

MAX_TOP_LOGPROBS = 20


class StreamOptions(Body):
    """What a stream reports beside text."""

    include_usage: bool | None = None
    """Send one more chunk with the token counts before the end."""
    continuous_usage_stats: bool | None = None
    """Put the token counts so far into every chunk."""


class Sampling(Body):
    """OpenAI's own fields."""

    temperature: Temperature = 1.0
    """How random the answer is; 0 always takes the most likely token."""
    top_p: Probability = 1.0
    """Sample from the fewest tokens whose probabilities reach this sum; 0 keeps the most likely one only."""
    n: Annotated[Int, Field(ge=1), AtMostSetting("max_n")] = 1
    """Choices for each prompt."""
    best_of: Annotated[Int, Field(ge=0, le=20)] | None = None
    """Generate this many and return the `n` of highest mean log-probability per token; not with `stream`."""
    stream: bool = False
    """Answer in server-sent events while tokens are generated."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    stop: Stops = ()
    """Up to 4 strings that end the answer; they are not part of it."""
    presence_penalty: Penalty = 0.0
    """Subtracted once from every token that was generated already."""
    frequency_penalty: Penalty = 0.0
    """Subtracted as often as the token was generated already."""
    logit_bias: LogitBias = Field(default_factory=tuple)
    """Token id to a number added to its logit; -100 bans the token."""
    seed: Seed | None = None
    """Same request, seed and `system_fingerprint`: same answer."""
    response_format: ResponseFormat = None
    """What form the answer must have: text, a JSON object, or JSON that satisfies a schema."""


class Extensions(Body):
    """Fields that other servers added and clients rely on."""

    top_k: Annotated[Int, Field(ge=-1)] = 0
    """Sample from the k most likely tokens; 0 and -1 are off."""
    min_p: Probability = 0.0
    """Drop tokens below this share of the most likely one's probability."""
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """Above 1 discourages tokens of the prompt and of the answer so far."""
    min_tokens: Annotated[Int, Field(ge=0)] = 0
    """Neither end tokens nor stop strings end the answer before it has this many tokens."""
    stop_token_ids: StopTokenIds = Field(default_factory=list)
    """Further token ids that end the answer."""
    ignore_eos: bool = False
    """Go on past the model's own end token."""
    include_stop_str_in_output: bool = False
    """Keep the stop string that ended the answer."""
    skip_special_tokens: bool = True
    """Leave control tokens out of the text."""
    bad_words: BadWords = ()
    """Words that must not be generated."""
    allowed_token_ids: AllowedTokenIds | None = None
    """Only these tokens may be generated."""
    prompt_logprobs: Annotated[Int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Report the log-probability of each prompt token, and this many alternatives; not with `stream`."""
    truncate_prompt_tokens: Truncation | None = None
    """Keep at most this many tokens of a prompt; -1: as many as fit. Chat leaves out its oldest turns, whole."""
    truncation_side: Side = "left"
    """Which end of a prompt is cut."""
    return_token_ids: bool = False
    """Add `token_ids` and `prompt_token_ids` to each choice."""
    return_tokens_as_token_ids: bool = False
    """Name tokens `token_id:7` in log-probabilities."""
    priority: RefusedNumber = None
    """Not supported: requests are served in order of arrival."""
    cache_salt: str | None = None
    """Reuse cached prefixes only among requests with the same salt."""
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")] | None = None
    """The client's own name for the request; becomes the end of `id`."""
    use_beam_search: RefusedSwitch = None
    """Not supported."""
    length_penalty: Annotated[Any, UnsupportedUnless(1, 1.0)] = None
    """Not supported: it belongs to beam search."""
    prompt_embeds: Refused = None
    """Not supported."""
    structured_outputs: StructuredOutputs = None
    """vLLM's spelling of `response_format`, which also knows expressions and choices."""
    guided_json: PlainSchema = None
    """Older vLLM's spelling of a JSON schema."""
    guided_regex: PlainRegex = None
    """Older vLLM's spelling of an expression that the whole answer must match."""
    guided_choice: PlainChoice = None
    """Older vLLM's spelling of the answers there may be."""
    guided_grammar: Refused = None
    """Not supported."""
    guided_decoding_backend: Annotated[Any, UnsupportedUnless("auto")] = None
    """There is nothing to choose between."""
    structural_tag: Refused = None
    """Not supported."""
    regex: PlainRegex = None
    """SGLang's spelling of an expression that the whole answer must match."""
    json_schema: PlainSchema = None
    """llama.cpp's spelling of a JSON schema."""
    grammar: Refused = None
    """Not supported."""
    ebnf: Refused = None
    """Not supported."""
