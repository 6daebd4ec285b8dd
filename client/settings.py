"""What `groundup chat` can be told. It knows neither HTTP nor the terminal."""

import os
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class ChatConfig(BaseSettings):
    """Talk to a model behind any OpenAI-compatible server; from a pipe, ask it one question.

    The server's key comes from OPENAI_API_KEY. In a conversation, /help lists what else can be done.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="GROUNDUP_CHAT_", use_attribute_docstrings=True
    )

    base_url: str | None = None
    """Where the server's API begins; left out: OPENAI_BASE_URL, or a `groundup serve` on this machine."""
    model: str | None = None
    """Which of its models answers; left out: the only one that chats."""
    system: str | None = None
    """Instructions that come before the conversation."""
    max_tokens: PositiveInt | None = None
    """Most tokens of one answer. This and everything below, left out: the server decides."""
    temperature: float | None = Field(None, ge=0, le=2)
    """0 always takes the most likely token; higher is more varied."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Choose among the most likely tokens that together reach this probability."""
    top_k: PositiveInt | None = None
    """Choose among the k most likely tokens; not every server knows it."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Leave out tokens below this share of the most likely one's probability; not every server knows it."""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """Above 1 makes tokens that were already used less likely; not every server knows it."""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """Above 0 makes tokens less likely each time they are used."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """Above 0 makes tokens less likely once they were used."""
    stop: tuple[str, ...] | None = None
    """Texts that end an answer."""
    seed: int | None = None
    """The same seed gives the same answer to the same conversation, where the server keeps that promise."""
    timeout_s: PositiveFloat = 600.0
    """Longest silence of the server."""

    @property
    def url(self) -> str:
        """Where the server's API begins, after all."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8000/v1"

    @property
    def sampling(self) -> dict[str, Any]:
        """What was chosen of how answers are written, and nothing else: servers refuse what they do not know."""
        where = {"base_url", "model", "system", "timeout_s"}
        return {name: value for name, value in self.model_dump(exclude=where, mode="json").items() if value is not None}
