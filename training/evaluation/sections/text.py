"""Section: how well a language model predicts texts, as they are or prepared."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.tokenizer import Tokenizer
from training.data.corpus import is_prepared
from training.data.encoding import fingerprint, text_bytes
from training.data.errors import DataError
from training.data.holdout import VALID
from training.data.ids import Ids
from training.data.records import read_records
from training.data.shards import MANIFEST, TokenFile, open_datatrove, open_shards, read_manifest
from training.data.slices import cut_files, find_files, kind_of
from training.data.sources import TEXT_COLUMNS, Reader
from training.evaluation.measured import Measured
from training.evaluation.report import Section
from training.evaluation.text import text_metrics, token_metrics

CONVERSATION_KEYS = {"messages", "instruction", "prompt", "chosen"}
"""Tell records of conversations and preferences from those of texts, which may have more fields than their text."""

TEXT_KEYS = set(TEXT_COLUMNS)


def measure_text(measured: Measured, path: Path) -> Section:
    """Score texts, or the held-out side of prepared ones, with a language model.

    Raises:
        DataError: there is no text, or it was prepared for another tokenizer.
    """
    config, tokenizer = measured.config, measured.tokenizer
    if is_prepared(path):
        shards, num_bytes = open_tokens(path, tokenizer, config.limit)
        figures = token_metrics(measured.model, shards, tokenizer, num_bytes=num_bytes, batch_size=config.batch_size)
    else:
        documents = itertools.islice(read_texts(path, config.text_column), config.limit)
        figures = text_metrics(measured.model, documents, tokenizer, batch_size=config.batch_size)
    return Section("text", "Text", figures)


def holds_text(path: Path) -> bool:
    """Say whether a path leads to texts or prepared ones, and not to a file of conversations or preferences.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == ".jsonl" and path.is_file():
        record = read_records(path)[0]
        return isinstance(record, dict) and not CONVERSATION_KEYS & record.keys() and bool(TEXT_KEYS & record.keys())
    return path.is_dir() or kind_of(path) is not None


def read_texts(path: Path, text_column: str | None) -> Iterator[str]:
    """Yield the documents of a file, a folder or a glob, a bounded part at a time.

    Raises:
        DataError: a file cannot be read.
    """
    reader = Reader(text_column)
    for piece in cut_files(find_files([path])):
        for part in piece:
            yield from reader.documents(part)


def open_tokens(folder: Path, tokenizer: Tokenizer, limit: int | None = None) -> tuple[list[Ids], int]:
    """Memory-map prepared tokens, the held-out ones if there are two sides, and count the bytes of their text.

    Args:
        limit: take the first so many documents; None: all.

    Raises:
        DataError: they are not whole, or were written with another tokenizer.
    """
    if (folder / VALID / MANIFEST).exists():
        folder = folder / VALID
    if not (folder / MANIFEST).exists():
        shards = _first_documents(open_datatrove(folder, tokenizer.vocab_size), limit)
        return shards, sum(text_bytes(ids, tokenizer) for ids in shards)
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != fingerprint(tokenizer):
        raise DataError(f"--data: {folder}: the token shards were not written with the checkpoint's tokenizer")
    shards = _first_documents(open_shards(folder), limit)
    if limit is None or limit >= manifest.num_documents:
        return shards, manifest.num_bytes
    return shards, sum(text_bytes(ids, tokenizer) for ids in shards)


def _first_documents(files: Sequence[TokenFile], limit: int | None) -> list[Ids]:
    if limit is None:
        return [file.ids for file in files]
    shards = []
    for file in files:
        taken = file.ends[:limit]
        shards.append(file.ids[: int(taken[-1]) if len(taken) else 0])
        limit -= len(taken)
    return shards
