"""Settings of `groundup judge`."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg

from training.config.run import RunConfig


class JudgeConfig(BaseSettings):
    """Let a language model grade answers from 0 to 100, or say which of two models answers better.

    The judge is asked through an OpenAI-compatible API; its key comes from OPENAI_API_KEY.
    """

    model_config = RunConfig.model_config

    responses: CliPositionalArg[Path]
    """Answers to judge, such as the `responses.jsonl` that `groundup instruct` and `groundup evaluate` write."""
    against: Path | None = None
    """Another model's answers to the same prompts: ask which is better, both ways round, instead of for grades."""
    out: Path
    """Folder for the report and for what the judge said; the same command again asks only what is still missing."""
    model: str = Field(min_length=1)
    """Name of the judge at its endpoint."""
    base_url: str | None = None
    """The endpoint, such as `http://localhost:8000/v1`; left out: OPENAI_BASE_URL."""
    limit: PositiveInt | None = None
    """Judge the first so many answers only."""
    parallel: PositiveInt = 4
    """Questions that the judge is asked at once."""
    retries: NonNegativeInt = 5
    """Times that a question is asked again when the endpoint is busy, broken or silent, after ever longer waits."""
    timeout_s: float = Field(120.0, gt=0)
    """Seconds to wait for one reply."""
    max_tokens: PositiveInt | None = None
    """Longest reply; left out: the endpoint's own limit."""
