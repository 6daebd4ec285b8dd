"""`groundup generate`: continue a prompt, or answer it, on the terminal, without a server.

It uses the plain, slow generation loop; speed is the engine's business.
"""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from model.chat import ChatTemplate
from model.directory import Checkpoint, read_checkpoint
from model.sampling_params import SamplingParams
from model.tokenizer import StreamDecoder, Tokenizer


class GenerateConfig(BaseSettings):
    """Continue a prompt with a base model, or answer it with an assistant."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="GROUNDUP_GENERATE_", use_attribute_docstrings=True
    )

    checkpoint: CliPositionalArg[Path]
    """Checkpoint directory of a base model or an assistant."""
    prompt: str = ""
    """Text to continue; for an assistant, what the user says."""
    system: str | None = None
    """Assistant only: instructions that come before the prompt."""
    max_tokens: PositiveInt = 128
    """Most tokens to write."""
    temperature: float = Field(0.8, ge=0, le=2)
    """0 always takes the most likely token; higher is more varied."""
    top_k: NonNegativeInt = 0
    """Choose among the k most likely tokens; 0: among all."""
    top_p: float = Field(1.0, ge=0, le=1)
    """Choose among the most likely tokens that together reach this probability."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Leave out tokens below this share of the most likely one's probability."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Above 1 makes tokens that were already used less likely."""
    seed: int = 0
    """The same seed gives the same text."""
    device: str = "cpu"
    """Where the model runs: `cpu`, `cuda`, `cuda:1`, ..."""


def run(config: GenerateConfig) -> None:
    """Print the text while it is written.

    Raises:
        ValueError: the checkpoint cannot generate, or the prompt does not fit its context.
    """
    checkpoint = read_checkpoint(config.checkpoint)
    tokenizer = Tokenizer.from_directory(checkpoint.path)
    prompt_ids = encode_prompt(config, checkpoint, tokenizer)
    params = SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
    )

    from model.checkpoint import load_gpt  # torch takes seconds to import, and --help needs none of it
    from model.generate import generate_tokens

    model = load_gpt(checkpoint.path, device=config.device)
    decoder = StreamDecoder(tokenizer, opens_text=checkpoint.kind != "base" or not config.prompt)
    if checkpoint.kind == "base":
        print(config.prompt, end="", flush=True)
    for token_id in generate_tokens(model, prompt_ids, params, eos_token_ids=checkpoint.eos_token_ids):
        print(decoder.push(token_id), end="", flush=True)
    print(decoder.flush())


def encode_prompt(config: GenerateConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """Return the ids to continue: the text itself, or the opened answer to it."""
    if checkpoint.kind == "classifier":
        raise ValueError(f"{checkpoint.path}: a classifier writes no text; serve it and call /classify")
    if checkpoint.kind == "base":
        if config.system is not None:
            raise ValueError(f"--system: {checkpoint.path} is a base model, it only continues text")
        return [*tokenizer.bos_ids, *tokenizer.encode(config.prompt, parse_special=True)] or [tokenizer.eos_id]
    messages = [] if config.system is None else [{"role": "system", "content": config.system}]
    messages.append({"role": "user", "content": config.prompt})
    return ChatTemplate.from_directory(checkpoint.path, tokenizer).encode(messages)
