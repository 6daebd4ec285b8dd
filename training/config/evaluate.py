"""Settings of `groundup evaluate`."""

from pathlib import Path

from pydantic import PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg

from training.config.run import RunConfig


class EvaluateConfig(BaseSettings):
    """Measure a checkpoint on a file."""

    model_config = RunConfig.model_config

    checkpoint: CliPositionalArg[Path]
    """Checkpoint directory. Its kind decides what is measured: text, labelled texts or conversations."""
    data: Path
    """Text file for a base model, labelled texts for a classifier, conversations for an assistant."""
    text_column: str | None = None
    """Classifier: column of the texts; left out: found by its usual names."""
    label_column: str | None = None
    """Classifier: column of the labels; left out: found by its usual names."""
    batch_size: PositiveInt = 32
    """Rows evaluated together."""
    limit: PositiveInt | None = None
    """Look at the first so many examples only."""
    max_tokens: PositiveInt = 64
    """Assistant: longest answer."""
    device: str = "auto"
    """`auto` takes a GPU if there is one; else `cpu`, `cuda`, ..."""
