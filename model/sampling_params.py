"""How one sequence is to be sampled: plain values, free of torch, so that the HTTP process can build them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Settings of one sequence. Ranges are checked where they enter, at the HTTP border."""

    max_tokens: int = 16
    """Most tokens to generate; 0 scores the prompt only."""
    min_tokens: int = 0
    """End tokens are banned until this many tokens exist."""
    temperature: float = 1.0
    """0 is greedy: the arg-max, the lowest id on a tie."""
    top_p: float = 1.0
    """Nucleus: the smallest set of tokens whose probability reaches this; 0 keeps the top token only."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 is off."""
    min_p: float = 0.0
    """Drop tokens below this share of the most likely token's probability."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or output (CTRL, Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Subtracted once from every token that was generated."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the token was generated."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, bias) pairs; -100 or less bans the token."""
    allowed_token_ids: tuple[int, ...] | None = None
    """Only these may follow; None: all may."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Runs of ids that must not be generated: the last id of one is banned right after the others."""
    seed: int = 0
    """Noise is a pure function of (seed, choice, position), so neighbours in a batch never change a result."""
    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end the sequence, beside the model's own end tokens."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many top log-probabilities to report for each generated token beside the chosen one; None: none at all."""
    prompt_logprobs: int | None = None
    """The same for the prompt's own tokens."""
