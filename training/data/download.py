"""One file over HTTP, resumable: it grows under a `.part` name and gets its own once its checksum is right."""

import hashlib
import http.client
import logging
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from training.data.errors import DataError
from training.data.registry import RemoteFile
from training.data.shards import sync

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""Times a broken connection is taken up again before giving up; what has arrived is kept."""

TIMEOUT_S = 30.0

CONNECTION_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
"""What may be gone at the next attempt, unlike a full disk."""

_BLOCK = 1 << 18


def download(file: RemoteFile, target: Path, *, pause_s: float = 1.0) -> str:
    """Download to `target`, going on with `target.part` if there is one; return the checksum.

    Raises:
        DataError: the server cannot be reached or refuses, or what came is not what was expected.
    """
    part = target.with_name(f"{target.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(file, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS:
                raise DataError(f"{file.url}: {error.code} {error.reason}; fetch it yourself and add --from") from None
        except CONNECTION_ERRORS as error:
            if attempt == ATTEMPTS:
                raise DataError(
                    f"{file.url}: {getattr(error, 'reason', error)}; {_size(part):,} bytes are kept: run again to go "
                    "on, or fetch it yourself and add --from"
                ) from None
        logger.warning("connection lost after %s bytes; going on", f"{_size(part):,}")
        time.sleep(pause_s * attempt)
    found = checksum(part)
    try:
        verify(file, _size(part), found, part)
    except DataError:
        part.unlink()  # going on with it would never become right
        raise
    part.replace(target)
    return found


def verify(file: RemoteFile, size: int, sha256: str, path: Path) -> None:
    """Compare a file with what is known of it.

    Raises:
        DataError: it differs.
    """
    if file.size not in (None, size):
        raise DataError(f"{path}: {size:,} bytes instead of {file.size:,}; it is not {file.name}")
    if file.sha256 not in (None, sha256):
        raise DataError(f"{path}: checksum {sha256} instead of {file.sha256}; it is not {file.name}, or was damaged")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _transfer(file: RemoteFile, part: Path) -> None:
    """Append what is missing, or start afresh where the server knows no ranges."""
    done = _size(part)
    if done and done == file.size:
        return
    headers = {"User-Agent": "groundup", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _total(error.headers.get("Content-Range")) == done:
            return  # all of it is here already
        if error.code == 416:
            part.unlink()
            raise ConnectionError("what was kept does not fit the file any more") from None
        raise
    with response:
        begin = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
        if done and response.status != 206:
            done = 0
        elif done and begin != str(done):
            part.unlink()
            raise ConnectionError(f"asked for the bytes from {done:,} on, the server sent others")
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        bar = tqdm(
            total=total,
            initial=done,
            desc=file.name,
            unit="B",
            unit_scale=True,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        )
        with part.open("ab" if done else "wb") as out, bar:
            while block := response.read(_BLOCK):
                out.write(block)
                bar.update(len(block))
            sync(out)
    if total is not None and _size(part) != total:
        raise ConnectionError(f"the connection ended at {_size(part):,} of {total:,} bytes")


def _total(content_range: str | None) -> int | None:
    """Read the size from `bytes */SIZE`."""
    size = (content_range or "").rpartition("/")[2]
    return int(size) if size.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
