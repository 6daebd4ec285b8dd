"""From text to token shards: read documents, hold some out, encode, write with a manifest.

Nothing here knows batches or models.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.tokenizer import Tokenizer
from training.data.tokens import MANIFEST, DataError, Ids, Manifest, Shard, open_shards, read_manifest

DOCUMENT_END = "<|endoftext|>"
"""Between two documents of one file, as published story sets have it."""

SHARD_TOKENS = 50_000_000
"""Most tokens in one file."""

TRAIN, VALID = "train", "valid"


@dataclass(frozen=True, slots=True)
class Corpus:
    """The two sides of a text as token ids."""

    train: list[Ids]
    valid: Ids
    valid_bytes: int
    """Length of the held-out text as UTF-8."""


def read_documents(path: Path) -> list[str]:
    """Read a text file, or every `.txt` file below a folder in order of name, as documents.

    Raises:
        DataError: nothing there, not UTF-8, or only white space.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    documents: list[str] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--data: {file}: {describe(error)}") from None
        documents += [part.strip("\n") for part in text.split(DOCUMENT_END) if part.strip()]
    if not documents:
        raise DataError(
            f"--data: {path}: " + ("no .txt file with text in it" if path.is_dir() else "the file is empty")
        )
    return documents


def describe(error: OSError | UnicodeDecodeError) -> str:
    """Put a failed read in a few words."""
    return f"not UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error.strerror)


def split_documents(documents: Sequence[str], valid_fraction: float) -> tuple[list[str], list[str]]:
    """Hold out the end: the last documents, or the last lines where there is only one document.

    Raises:
        DataError: too little text to have two sides.
    """
    parts = documents if len(documents) > 1 else documents[0].splitlines(keepends=True)
    sizes = np.cumsum([len(part) for part in parts])
    cut = int(np.searchsorted(sizes, sizes[-1] * (1 - valid_fraction), side="right"))
    cut = min(max(cut, 1), len(parts) - 1)
    if cut < 1:
        raise DataError("--data: a single line cannot be split into training and validation text")
    if len(documents) > 1:
        return list(parts[:cut]), list(parts[cut:])
    return ["".join(parts[:cut])], ["".join(parts[cut:])]


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Ids:
    """Encode documents one after another, each followed by the end token."""
    dtype = id_dtype(tokenizer.vocab_size)
    ids: Ids = np.concatenate([np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype) for text in documents])
    return ids


def write_shards(directory: Path, documents: Sequence[str], tokenizer: Tokenizer) -> Manifest:
    """Write documents as token shards; the manifest comes last, so that a folder with one is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = encode_documents(documents, tokenizer)
    shards = []
    for number, start in enumerate(range(0, len(ids), SHARD_TOKENS)):
        part = ids[start : start + SHARD_TOKENS]
        name = f"{number:05d}.bin"
        part.tofile(directory / name)
        shards.append(Shard(file=name, num_tokens=len(part), sha256=hashlib.sha256(part.tobytes()).hexdigest()))
    manifest = Manifest(
        dtype="uint16" if ids.dtype == np.uint16 else "uint32",
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=fingerprint(tokenizer),
        num_documents=len(documents),
        num_tokens=len(ids),
        num_bytes=sum(len(text.encode()) for text in documents),
        shards=tuple(shards),
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def write_corpus(directory: Path, train: Sequence[str], valid: Sequence[str], tokenizer: Tokenizer) -> None:
    """Write the two sides of a text as shards, with the tokenizer's files beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer.files().items():
        (directory / name).write_bytes(content)
    write_shards(directory / VALID, valid, tokenizer)
    write_shards(directory / TRAIN, train, tokenizer)


def open_corpus(directory: Path, tokenizer: Tokenizer) -> Corpus:
    """Open what `write_corpus` wrote.

    Raises:
        DataError: it is not whole, or was written with another tokenizer.
    """
    manifest = read_manifest(directory / VALID)
    if manifest.tokenizer_sha256 != fingerprint(tokenizer):
        raise DataError(f"{directory}: the token shards were written with another tokenizer than --tokenizer")
    valid: Ids = np.concatenate(open_shards(directory / VALID))
    return Corpus(train=open_shards(directory / TRAIN), valid=valid, valid_bytes=manifest.num_bytes)


def is_corpus(path: Path) -> bool:
    """Say whether a path is a folder written by `write_corpus`."""
    return (path / TRAIN / MANIFEST).exists()


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return a digest of a tokenizer's vocabulary and rules."""
    return hashlib.sha256(tokenizer.files()["tokenizer.json"]).hexdigest()


def id_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smaller type if it holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32
