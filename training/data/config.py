"""What `groundup data ...` can be told: frozen configs whose field strings are also the help text. Free of torch."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from training.config.run import RunConfig

_SETTINGS = SettingsConfigDict(**(RunConfig.model_config | {"env_prefix": "GROUNDUP_DATA_"}))


class PrepareConfig(BaseSettings):
    """Turn texts into token shards, in parallel; a run that was ended goes on with --resume."""

    model_config = _SETTINGS

    data: tuple[Path, ...] = Field(min_length=1)
    """Texts: `.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, also `.gz`; files, folders or globs."""
    out: Path
    """Folder to write to: `train/`, `valid/` and the tokenizer."""
    tokenizer: str | None = None
    """`gpt2`, or a directory with a `tokenizer.json`; left out: a vocabulary is trained on a sample of the texts."""
    vocab_size: int = Field(32768, ge=262)
    """Size of the vocabulary to train."""
    sample_bytes: PositiveInt = 64 << 20
    """Most text to train a vocabulary on, taken from all over the data."""
    valid_fraction: float = Field(0.01, ge=0, lt=1)
    """Share held out: the last characters of a single document, else whole documents chosen by their content."""
    text_column: str | None = None
    """Column of the text in tables; left out: found by its usual names."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do with text that cannot be read: name the place and stop, or leave it out and count it."""
    num_workers: PositiveInt = Field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that encode; left out: one for each processor. The result does not depend on it."""
    shard_tokens: PositiveInt = 100_000_000
    """Tokens after which a shard ends, at the end of a document."""
    resume: bool = False
    """Go on where an earlier run was ended; what is finished is not done again."""
    overwrite: bool = False
    """Throw away what an earlier run has written."""

    @field_validator("data", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


class FetchConfig(BaseSettings):
    """Download a public data set into `data/NAME`; an interrupted download goes on where it was."""

    model_config = SettingsConfigDict(**(_SETTINGS | {"populate_by_name": True}))

    name: CliPositionalArg[str] = ""
    """Which one; `--list` shows them with licence and size."""
    list: bool = False
    """Show what there is."""
    out: Path = Path("data")
    """Folder that receives a folder of this name."""
    from_file: Path | None = Field(None, alias="from")
    """Take this file instead of downloading it; its checksum is verified all the same."""
    overwrite: bool = False
    """Fetch again what is there already."""
