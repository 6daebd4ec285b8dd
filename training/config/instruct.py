"""Settings of `groundup instruct`."""

from pathlib import Path

from pydantic import Field, PositiveInt

from training.config.run import OptimConfig, RunConfig


class InstructConfig(RunConfig):
    """Teach a base model to answer."""

    data: Path
    """Conversations: `.json` or `.jsonl` of instruction/input/output, or of `messages` with role and content."""
    base: Path
    """Checkpoint to start from, with its tokenizer."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the conversations held out."""
    steps: PositiveInt = 1000
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Conversations of one optimizer step."""
    optim: OptimConfig = OptimConfig(lr=2e-3)
    """The optimizer."""
