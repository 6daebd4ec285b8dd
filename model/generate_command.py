"""`groundup generate`: continue a prompt, or answer it, on the terminal, without a server.

It uses the plain, slow generation loop; speed is the engine's business.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from model.chat import ChatTemplate
from model.directory import TOKENIZER_FILE, Checkpoint, CheckpointError, has_chat_template, is_adapter, read_checkpoint
from model.sampling_params import SamplingParams
from model.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from model.adapter_directory import StoredAdapter


class GenerateConfig(BaseSettings):
    """Continue a prompt with a base model, or answer it with an assistant."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="GROUNDUP_GENERATE_", use_attribute_docstrings=True
    )

    checkpoint: CliPositionalArg[Path]
    """Directory of a base model or an assistant, or of an adapter that makes one of its base."""
    base: Path | None = None
    """Adapters only: checkpoint directory of the base; left out: the one that the adapter names."""
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
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0 makes tokens less likely once they were generated."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0 makes tokens less likely each time they were generated."""
    seed: int = 0
    """The same seed gives the same text."""
    device: str = "cpu"
    """Where the model runs: `cpu`, `cuda`, `cuda:1`, ..."""


def run(config: GenerateConfig) -> None:
    """Print the text while it is written.

    Raises:
        ValueError: the checkpoint cannot generate, or the prompt does not fit its context.
    """
    source = find_source(config)
    checkpoint, tokenizer = source.described, Tokenizer.from_directory(source.tokenizer_path)
    prompt_ids = encode_prompt(config, source, tokenizer)
    params = SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        seed=config.seed,
    )

    from model.checkpoint import load_gpt, load_merged  # torch takes seconds to import, and --help needs none of it
    from model.generate import generate_tokens
    from model.gpt import GPT

    if source.adapter is None:
        model = load_gpt(checkpoint.path, device=config.device)
    else:
        merged = load_merged(source.adapter, source.base_path)
        assert isinstance(merged, GPT)
        model = merged.to(config.device).eval()
    decoder = StreamDecoder(tokenizer, opens_text=checkpoint.kind != "base" or not config.prompt)
    if checkpoint.kind == "base":
        print(config.prompt, end="", flush=True)
    for token_id in generate_tokens(model, prompt_ids, params, eos_token_ids=checkpoint.eos_token_ids):
        print(decoder.push(token_id), end="", flush=True)
    print(decoder.flush())


class Source(NamedTuple):
    """Where a model that writes comes from."""

    described: Checkpoint
    tokenizer_path: Path
    template_path: Path
    base_path: Path
    adapter: "StoredAdapter | None" = None


def find_source(config: GenerateConfig) -> Source:
    """Find what belongs to the model: all in one directory, or shared out between an adapter and its base.

    Raises:
        CheckpointError: something is missing, or the model writes no text.
    """
    path = config.checkpoint
    if is_adapter(path):
        from model.adapter_directory import describe_adapted, read_adapter
        from model.merge_command import choose_base

        adapter = read_adapter(path)
        base = choose_base(config.base, adapter)
        described = describe_adapted(adapter, read_checkpoint(base))
        tokenizer_path = path if (path / TOKENIZER_FILE).exists() else base
        source = Source(described, tokenizer_path, path if has_chat_template(path) else base, base, adapter)
    else:
        if config.base is not None:
            raise CheckpointError(f"--base: {path} is no adapter, it needs none")
        source = Source(read_checkpoint(path), path, path, path)
    if source.described.kind == "classifier":
        raise CheckpointError(f"{path}: a classifier writes no text; serve it and call /classify")
    return source


def encode_prompt(config: GenerateConfig, source: Source, tokenizer: Tokenizer) -> list[int]:
    """Return the ids to continue: the text itself, or the opened answer to it."""
    if source.described.kind == "base":
        if config.system is not None:
            raise ValueError(f"--system: {config.checkpoint} is a base model, it only continues text")
        return [*tokenizer.bos_ids, *tokenizer.encode(config.prompt, parse_special=True)] or [tokenizer.eos_id]
    messages = [] if config.system is None else [{"role": "system", "content": config.system}]
    messages.append({"role": "user", "content": config.prompt})
    return ChatTemplate.from_directory(source.template_path, tokenizer).encode(messages)
