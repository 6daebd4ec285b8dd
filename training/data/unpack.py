"""What is made of a download so that the other verbs can read it. Archives are read, never spilled into the folder."""

import csv
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from training.data.errors import DataError

_IMDB_MEMBER = re.compile(r"aclImdb/(train|test)/(neg|pos)/\d+_\d+\.txt")
_GUTENBERG_MARK = re.compile(r"^\*\*\* ?(START|END) OF [^\n]*\*\*\*[^\n]*$", re.MULTILINE)


def unpack(kind: str, download: Path, folder: Path) -> list[Path]:
    """Make the usable files of a download, and return them.

    Raises:
        DataError: it is not what it should be.
    """
    try:
        return _UNPACKERS[kind](download, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{download}: cannot be unpacked: {error}") from error


def _sms_spam(download: Path, folder: Path) -> list[Path]:
    """Take the one table out of UCI's archive; tab-separated, it says so by its name."""
    table = folder / "SMSSpamCollection.tsv"
    with zipfile.ZipFile(download) as archive:
        table.write_bytes(archive.read("SMSSpamCollection"))
    return [table]


def _imdb(download: Path, folder: Path) -> list[Path]:
    """Put 50,000 little files into two tables."""
    tables = [folder / "train.csv", folder / "test.csv"]
    with (
        tables[0].open("w", encoding="utf-8", newline="") as train,
        tables[1].open("w", encoding="utf-8", newline="") as test,
    ):
        writers = {"train": _start_table(train), "test": _start_table(test)}
        for side, label, text in _imdb_reviews(download):
            writers[side].writerow([text, label])
    return tables


def _start_table(file: TextIO) -> Any:
    writer = csv.writer(file)
    writer.writerow(["text", "label"])
    return writer


def _imdb_reviews(download: Path) -> Iterator[tuple[str, str, str]]:
    with tarfile.open(download, "r|gz") as archive:
        for member in archive:
            if (found := _IMDB_MEMBER.fullmatch(member.name)) and (content := archive.extractfile(member)):
                yield found[1], found[2], content.read().decode()


def _gutenberg(download: Path, folder: Path) -> list[Path]:
    """Keep what stands between Project Gutenberg's marks, and rejoin nothing: lines stay as they are."""
    text = download.read_text("utf-8-sig")
    marks = list(_GUTENBERG_MARK.finditer(text))
    if [mark[1] for mark in marks[:1] + marks[-1:]] != ["START", "END"]:
        raise DataError(f"{download}: no marks of Project Gutenberg around the text")
    book = folder / download.name.removesuffix(".download")
    book.write_text(text[marks[0].end() : marks[-1].start()].strip("\n") + "\n", encoding="utf-8")
    return [book]


_UNPACKERS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "sms-spam": _sms_spam,
    "imdb": _imdb,
    "gutenberg": _gutenberg,
}
