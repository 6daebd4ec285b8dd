"""`groundup data fetch`: a public data set into `data/NAME`, verified, with a note of where it came from.

What is in the registry is the registry's business, how bytes travel that of `download`.
"""

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from training.data.config import FetchConfig
from training.data.download import checksum, download, verify
from training.data.errors import DataError
from training.data.registry import REGISTRY, DataSet, RemoteFile
from training.data.shards import write_durably
from training.data.unpack import unpack
from training.run.progress import show_messages

logger = logging.getLogger(__name__)

NOTE = "fetched.json"
"""What was fetched from where, with checksums; written when all is there."""


def run(config: FetchConfig) -> None:
    """Fetch one data set, or list them.

    Raises:
        DataError: there is no such set, it cannot be had, or it is not what it should be.
    """
    show_messages()
    if config.list:
        sys.stdout.write(overview())
        return
    if config.name not in REGISTRY:
        raise DataError(f"{config.name or 'NAME'}: no such data set; there are {', '.join(REGISTRY)}")
    folder = config.out / config.name
    try:
        fetch(config.name, folder, config.from_file, overwrite=config.overwrite)
    except OSError as error:
        raise DataError(f"--out: {error.filename or folder}: {error.strerror or error}") from error


def overview() -> str:
    """Return a table of what there is."""
    lines = []
    for name, entry in REGISTRY.items():
        size = f"{entry.size / 1e6:,.1f} MB" if entry.size else "size unknown"
        verified = all(file.sha256 for file in entry.files)
        how = "checksum known" if verified else "no checksum known: the first download is trusted"
        lines.append(f"{name:<16}{size:>13}  {entry.summary}\n{'':<16}{'':>13}  {entry.licence}; {how}\n")
    return "".join(lines)


def fetch(name: str, folder: Path, source: Path | None, *, overwrite: bool) -> None:
    """Download the files of a set, or take them from `source`, a file or a folder that holds them by name."""
    entry = REGISTRY[name]
    note = read_note(folder)
    have = {file.name for file in entry.files if not overwrite and is_there(note, file, folder)}
    if len(have) == len(entry.files):
        write_note(folder, name, entry, note, complete=True)
        logger.info("%s is there already; --overwrite fetches it again", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        if file.name in have:
            continue
        target = folder / (f"{file.name}.download" if file.unpack else file.name)
        sha256 = take(file, find_source(entry, file, source), target) if source else download(file, target)
        remember(note, file, sha256, target)
        write_note(folder, name, entry, note, complete=False)
        if file.unpack:
            made = unpack(file.unpack, target, folder)
            note["files"][file.name]["made"] = [path.name for path in made]
            target.unlink()
    write_note(folder, name, entry, note, complete=True)
    logger.info("%s: %s; licence: %s", folder, entry.summary, entry.licence)


def is_there(note: dict[str, Any], file: RemoteFile, folder: Path) -> bool:
    """Say whether a file was fetched before, and what was made of it still lies there."""
    known = note.get("files", {}).get(file.name)
    made = known.get("made", [] if file.unpack else [file.name]) if known else []
    return bool(made) and all((folder / name).exists() for name in made)


def find_source(entry: DataSet, file: RemoteFile, source: Path) -> Path:
    """Return which local file stands for a download."""
    path = source / file.name if source.is_dir() else source
    if len(entry.files) > 1 and not source.is_dir():
        raise DataError(f"--from: this set has {len(entry.files)} files; give the folder that holds them")
    if not path.is_file():
        raise DataError(f"--from: {path}: no such file")
    return path


def take(file: RemoteFile, source: Path, target: Path) -> str:
    """Copy a local file that is what it should be; return its checksum."""
    sha256 = checksum(source)
    verify(file, source.stat().st_size, sha256, source)
    part = target.with_name(f"{target.name}.part")
    shutil.copy(source, part)
    part.replace(target)
    return sha256


def remember(note: dict[str, Any], file: RemoteFile, sha256: str, target: Path) -> None:
    """Note a file's checksum; one that was trusted at first must not change later.

    Raises:
        DataError: it has changed.
    """
    before = note.setdefault("files", {}).get(file.name)
    if before and before["sha256"] != sha256:
        target.unlink()
        raise DataError(
            f"{file.url}: checksum {sha256}, but {before['sha256']} when it was fetched before; if the change is "
            f"meant, remove {target.with_name(NOTE)}"
        )
    if file.sha256 is None and not before:
        logger.warning("%s: no checksum is known; %s is trusted from now on", file.name, sha256)
    trusted = "registry" if file.sha256 else "first use"
    note["files"][file.name] = {"url": file.url, "size": file.size, "sha256": sha256, "trusted by": trusted}


def read_note(folder: Path) -> dict[str, Any]:
    """Return what an earlier run has noted."""
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise DataError(f"{folder / NOTE}: not JSON; remove it and fetch again") from None
    if not isinstance(note, dict):
        raise DataError(f"{folder / NOTE}: not an object; remove it and fetch again")
    return note


def write_note(folder: Path, name: str, entry: DataSet, note: dict[str, Any], *, complete: bool) -> None:
    """Write what is known, at once and whole."""
    note |= {"name": name, "summary": entry.summary, "licence": entry.licence, "complete": complete}
    write_durably(folder / NOTE, (json.dumps(note, indent=2) + "\n").encode())
