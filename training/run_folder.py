"""Where a run writes while it goes on, and what must hold before it starts.

The checkpoint itself is written elsewhere, by `model.checkpoint`, at the end.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METRICS_FILE = "metrics.jsonl"
"""Written while the run goes on, and kept in the checkpoint."""


class OutputError(ValueError):
    """The place for the result cannot be used; the message says what to change."""


@contextmanager
def run_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a fresh folder `OUT.run` beside the checkpoint to be; it is removed when the run ends well.

    After a failure it stays if there are metrics in it.

    Raises:
        OutputError: `out` is taken, or its parent cannot be written to.
    """
    if out.exists():
        if not overwrite:
            raise OutputError(f"--out: {out} exists; choose another place or add --overwrite")
        if not (out / "config.json").exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"--out: {out} exists and is not a checkpoint; choose another place")
    folder = out.with_name(out.name + ".run")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"--out: {folder} cannot be made: {error.strerror}") from None
    try:
        yield folder
    except BaseException:
        if not (folder / METRICS_FILE).exists():
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
