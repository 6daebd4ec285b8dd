"""Settings of `groundup arena`."""

from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg

from training.config.run import RunConfig


class ArenaConfig(BaseSettings):
    """Rank models by votes on their answers: Elo and Bradley-Terry, with confidence intervals."""

    model_config = RunConfig.model_config

    votes: CliPositionalArg[Path]
    """Votes as the service's feedback file, as `groundup judge --against` or as chat arenas write them."""
    out: Path | None = None
    """Folder for the report: report.md, report.json, pictures; left out: only the figures are printed."""
    k_factor: float = Field(4.0, gt=0)
    """Elo: points for a win against all odds."""
    prior: float = Field(0.01, gt=0)
    """Bradley-Terry: how strongly ratings are drawn to the mean, in votes; keeps those finite that always win."""
    resamples: PositiveInt = 1000
    """Times that all votes are drawn again, for the intervals."""
    seed: int = Field(123, ge=0, lt=2**63)
    """Of those draws."""
