"""What the files were that a run read, so that a finished one notices that they have changed since.

A digest for each setting that names files. A manifest speaks for the token shards beside it, and of a checkpoint counts
what the model is, not what is told about it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from model.directory import ADAPTER_CONFIG_FILE, CONFIG_FILE, CheckpointError, is_adapter, read_json
from training.config.run import RunConfig
from training.data.corpus import is_prepared
from training.data.errors import DataError
from training.data.shards import MANIFEST
from training.data.slices import find_files

SOURCES_FILE = "sources.json"
"""The digests, beside the settings of the run."""

WRITTEN = {"out", "tensorboard"}
"""Settings that name places to write to."""

MODEL_SUFFIXES = {".json", ".jinja", ".safetensors"}


def source_digests(config: RunConfig) -> dict[str, str]:
    """Return a digest of what each setting leads to, by flag; what is not there or cannot be read is left out."""
    found = {}
    for name, value in config:
        paths = value if isinstance(value, tuple) else (value,)
        if name not in WRITTEN and paths and all(isinstance(path, Path) for path in paths):
            try:
                found[f"--{name.replace('_', '-')}"] = digest_of(file for path in paths for file in files_of(path))
            except (CheckpointError, DataError, OSError):
                continue
    return found


def files_of(path: Path) -> Iterator[Path]:
    """Yield the files that are read where a setting names `path`.

    Raises:
        CheckpointError: an adapter's description cannot be read.
        DataError: there are none.
    """
    if (path / CONFIG_FILE).exists() or is_adapter(path):
        yield from (file for file in sorted(path.iterdir()) if is_of_model(file))
        base = read_json(path / ADAPTER_CONFIG_FILE).get("base_model_name_or_path") if is_adapter(path) else None
        if base is not None and Path(base).is_dir():
            yield from files_of(Path(base))
    elif is_prepared(path):
        yield from sorted(path.rglob(MANIFEST)) or sorted(file for file in path.rglob("*") if file.is_file())
    else:
        yield from find_files([path])


def is_of_model(file: Path) -> bool:
    """Say whether a file of a checkpoint is part of the model."""
    return file.suffix in MODEL_SUFFIXES and file.name != SOURCES_FILE


def digest_of(files: Iterator[Path]) -> str:
    """Return a digest of files, their names and their order."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            found.update(f"{file.name}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()
