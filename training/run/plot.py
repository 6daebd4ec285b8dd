"""`groundup plot`: the curves of finished and unfinished runs, side by side in one picture.

It finds the records of a run; `curves` draws them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg

from training.config.run import RunConfig
from training.run.tracking import TrackingError, read_records

logger = logging.getLogger(__name__)


class PlotConfig(BaseSettings):
    """Draw loss, learning rate and speed of one or several runs."""

    model_config = RunConfig.model_config

    runs: CliPositionalArg[tuple[Path, ...]] = Field(min_length=1)
    """Checkpoints, folders of runs that still go on (or the checkpoint such a run will write), or `metrics.jsonl`."""
    out: Path = Path("curves.png")
    """Picture to write."""


def run(config: PlotConfig) -> None:
    """Draw the curves and write them as PNG.

    Raises:
        TrackingError: a run has no metrics, or the picture cannot be written.
    """
    from training.run.curves import Run, draw  # takes a second to import, and the settings need none of it

    places = [find_metrics(path) for path in config.runs]
    names = name_runs([place.parent if place.name == "metrics.jsonl" else place for place in places])
    picture = draw([Run(name, list(read_records(place))) for name, place in zip(names, places, strict=True)])
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_bytes(picture)
    except OSError as error:
        raise TrackingError(f"--out: {config.out} cannot be written: {error.strerror}") from None
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logger.info("wrote %s", config.out)


def find_metrics(path: Path) -> Path:
    """Return the file with the metrics of a run.

    Raises:
        TrackingError: there is none.
    """
    beside = path.with_name(path.name + ".run")
    for place in (path, path / "metrics.jsonl", beside / "metrics.jsonl"):
        if place.is_file():
            return place
    raise TrackingError(f"{path}: no metrics of a run; give a checkpoint, the folder of a run, or a metrics.jsonl")


def name_runs(places: Sequence[Path]) -> list[str]:
    """Return a short name for each run: its folder's, with as many folders above as make all names differ."""
    resolved = [place.resolve() for place in places]
    depth = 1
    while len({place.parts[-depth:] for place in resolved}) < len(set(resolved)):
        depth += 1
    return ["/".join(place.parts[-depth:]).removesuffix(".run") for place in resolved]
