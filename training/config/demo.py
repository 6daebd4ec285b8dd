"""Settings of `groundup train-demo`."""

from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings

from training.config.run import RunConfig


class DemoConfig(BaseSettings):
    """Train the three demo models - base, assistant, spam classifier - from generated data."""

    model_config = RunConfig.model_config

    full: bool = False
    """Train the better models, for up to an hour, instead of the quick ones in under five minutes."""
    lora_rank: PositiveInt | None = None
    """Finetune the assistant by adapters of this rank, the base model's weights staying as they are; left out: all of
    them train."""
    out: Path = Path("runs/demo")
    """Directory that receives the three checkpoints."""
    overwrite: bool = False
    """Replace checkpoints that are already there."""
    seed: int = Field(123, ge=0, lt=2**63)
    """Fixes data, initial weights and order."""
    num_threads: PositiveInt | None = None
    """CPU threads of the tensor library; left out: its own choice."""
