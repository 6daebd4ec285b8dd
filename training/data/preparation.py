"""`groundup data prepare`: texts to a folder of token shards, in parallel, restartable, the same whoever did the work.

The texts are cut into pieces that depend on the files alone; each finished piece is kept in `OUT.part`, and all of them
are joined in order at the end. `OUT` appears by one rename, so that a folder with this name is whole.
"""

import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.tokenizer import Tokenizer, load_tokenizer
from training.data.assembly import assemble
from training.data.claim import PLAN, claim, hold, working_folder
from training.data.config import PrepareConfig
from training.data.encoding import fingerprint
from training.data.errors import DataError, UnfinishedError
from training.data.holdout import TRAIN, VALID, bytes_by_bin, choose_bins, is_held_out
from training.data.pieces import Piece, finished, read_piece, tokenize_piece
from training.data.shards import read_manifest, sync_folder
from training.data.slices import SLICE_BYTES, cut_files, find_files
from training.data.sources import Reader
from training.data.workers import WorkerLostError, run_jobs
from training.run.progress import show_messages
from training.vocabulary import train_bpe

logger = logging.getLogger(__name__)

VERSION = 1
"""Grows when the same plan would give other bytes."""


def run(config: PrepareConfig) -> None:
    """Prepare texts and say what came of it.

    Raises:
        DataError: the texts cannot be used, or the result cannot be put where it should go.
        TokenizerError: the tokenizer cannot be read.
    """
    show_messages()
    prepare(config)
    for side in (TRAIN, VALID):
        manifest = read_manifest(config.out / side)
        counts = (manifest.num_documents, manifest.num_tokens, manifest.num_bytes)
        logger.info("%s: %s documents, %s tokens, %s bytes of text", side, *(f"{count:,}" for count in counts))
    logger.info("wrote %s", config.out)


def prepare(config: PrepareConfig, tokenizer: Tokenizer | None = None) -> None:
    """Prepare texts; `tokenizer` may be given in place of its name.

    Raises:
        DataError: the texts cannot be used, or the result cannot be put where it should go.
    """
    if tokenizer is None and config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)
    work = working_folder(config.out)
    pieces = plan_pieces(config, work)
    plan = make_plan(config, pieces, tokenizer)
    try:
        with hold(work):
            if claim(config, plan):
                tokenizer = keep_tokenizer(config, pieces, tokenizer)
                tokenize(config, pieces)
                finish(config, pieces, tokenizer)
    except WorkerLostError as error:
        raise UnfinishedError(
            f"--num-workers: {error}; what is finished is kept: --resume goes on from there"
        ) from error
    except OSError as error:
        what = f"{error.filename or work}: {error.strerror or error}"
        raise UnfinishedError(f"--out: {what}; what is finished is kept: --resume goes on from there") from error


def plan_pieces(config: PrepareConfig, work: Path) -> list[Piece]:
    """Cut the texts into pieces, which depend on the files alone.

    Raises:
        DataError: a file is missing, or cannot be read.
    """
    cuts = cut_files(find_files(config.data))
    piece = Piece(
        number=0,
        slices=(),
        folder=work / "pieces",
        tokenizer=work / "tokenizer",
        valid_fraction=config.valid_fraction,
        is_alone=len(cuts) == 1,
        text_column=config.text_column,
        skip_errors=config.on_error == "skip",
    )
    return [replace(piece, number=number, slices=tuple(slices)) for number, slices in enumerate(cuts)]


def make_plan(config: PrepareConfig, pieces: Sequence[Piece], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return what decides the result: the texts, the tokenizer and the settings, but not who does the work."""
    files = dict.fromkeys(Path(part.path) for piece in pieces for part in piece.slices)  # the order decides, too
    how = ("valid_fraction", "text_column", "on_error", "shard_tokens")
    vocabulary = {"vocab_size": config.vocab_size, "sample_bytes": config.sample_bytes}
    return {
        "version": VERSION,
        "files": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "tokenizer": fingerprint(tokenizer) if tokenizer else vocabulary,
        **{name: getattr(config, name) for name in how},
    }


def keep_tokenizer(config: PrepareConfig, pieces: Sequence[Piece], tokenizer: Tokenizer | None) -> Tokenizer:
    """Put the tokenizer where workers find it, training it first if none is given."""
    place = pieces[0].tokenizer
    if place.exists():
        return Tokenizer.from_directory(place)
    if tokenizer is None:
        return train_vocabulary(config, pieces, place)
    save_tokenizer(tokenizer, place)
    return tokenizer


def train_vocabulary(config: PrepareConfig, pieces: Sequence[Piece], place: Path) -> Tokenizer:
    """Learn a vocabulary from a sample of the training documents, and keep it."""
    logger.info("training a vocabulary of %s tokens", f"{config.vocab_size:,}")
    tokenizer = train_bpe(sample(pieces, config.sample_bytes), config.vocab_size)
    save_tokenizer(tokenizer, place)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, place: Path) -> None:
    """Write a tokenizer's directory, which appears whole."""
    aside = place.with_name("tokenizer.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (aside / name).write_bytes(content)
    aside.rename(place)


def sample(pieces: Sequence[Piece], num_bytes: int) -> Iterator[str]:
    """Yield training documents of pieces spread evenly over the texts, about `num_bytes` in all."""
    wanted = min(len(pieces), max(1, num_bytes // SLICE_BYTES))
    chosen = [pieces[i * len(pieces) // wanted] for i in range(wanted)]
    for piece in chosen:
        room = num_bytes // wanted
        for text in training_documents(piece):
            yield text[:room]
            room -= len(text)
            if room <= 0:
                break


def training_documents(piece: Piece) -> Iterator[str]:
    """Yield the documents of a piece that will not be held out, as far as it alone can tell.

    Which of many documents will be held out is not known before all are read: those of twice the share are left out,
    so that a vocabulary learns from next to none that it is judged on.
    """
    documents = read_piece(piece, Reader(piece.text_column, skip_errors=True))
    if not piece.is_alone:
        yield from (text for digest, text in documents if digest >= 2**64 * min(0.5, 2 * piece.valid_fraction))
        return
    known = np.fromiter(((digest, len(text.encode())) for digest, text in documents), np.dtype("u8,u8"))
    digests, sizes = known["f0"], known["f1"]
    held_out = is_held_out(digests, choose_bins(bytes_by_bin(digests, sizes), piece.valid_fraction))
    again = read_piece(piece, Reader(piece.text_column, skip_errors=True))  # texts need not fit into memory
    yield from (text for (_, text), out in zip(again, held_out, strict=True) if not out)


def tokenize(config: PrepareConfig, pieces: Sequence[Piece]) -> None:
    """Encode the pieces that are not done yet.

    Raises:
        DataError: bad input, or no text at all.
    """
    records = {piece.number: record for piece in pieces if (record := finished(piece))}
    to_do = [piece for piece in pieces if piece.number not in records]
    num_done, total = (sum(piece.num_source_bytes for piece in some) for some in (to_do, pieces))
    if records:
        logger.info("kept %d finished pieces of %d; %d to do", len(records), len(pieces), len(to_do))
    with tqdm(
        total=total,
        initial=total - num_done,
        desc="prepare",
        unit="B",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        disable=len(pieces) == 1,
    ) as bar:
        num_tokens = 0
        for piece, record in run_jobs(tokenize_piece, to_do, config.num_workers):
            records[piece.number] = record
            num_tokens += record.num_tokens
            speed = num_tokens / max(1e-9, bar.format_dict["elapsed"])
            bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
            bar.update(piece.num_source_bytes)
    if not any(record.num_tokens for record in records.values()):
        raise DataError(f"--data: {', '.join(map(str, config.data))}: no text; the files are empty")
    if num_skipped := sum(record.num_skipped for record in records.values()):
        logger.warning("left out %s places that could not be read", f"{num_skipped:,}")


def finish(config: PrepareConfig, pieces: Sequence[Piece], tokenizer: Tokenizer) -> None:
    """Join the pieces, let the result appear under its name, whole, and remove what it was made of.

    Raises:
        DataError: there is no text.
    """
    work = working_folder(config.out)
    result = work / "result"
    shutil.rmtree(result, ignore_errors=True)
    save_tokenizer(tokenizer, result)
    shutil.copy(work / PLAN, result / PLAN)
    assemble(
        pieces,
        result,
        config.valid_fraction,
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=fingerprint(tokenizer),
        tokenizer_name=config.tokenizer or "tokenizer.json",
        shard_tokens=config.shard_tokens,
    )
    for folder in (*(result / side for side in (TRAIN, VALID)), result):
        sync_folder(folder)
    result.rename(config.out)
    shutil.rmtree(work)  # `claim` does it if this is as far as a run gets
