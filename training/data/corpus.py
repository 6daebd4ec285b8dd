"""What `--data` names, opened to train on: prepared folders as they are, texts prepared first, several in shares.

It hands out batches and knows no model. Everything stays on disk, memory-mapped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.tokenizer import Tokenizer, load_tokenizer
from training.config.pretrain import PretrainConfig
from training.data.batches import Batches, InOrder
from training.data.config import PrepareConfig
from training.data.documents import Documents
from training.data.encoding import fingerprint, text_bytes
from training.data.errors import DataError
from training.data.holdout import TRAIN, VALID
from training.data.mixture import Mixture
from training.data.preparation import plan_pieces, prepare, train_vocabulary
from training.data.shards import (
    MANIFEST,
    Manifest,
    TokenFile,
    is_token_folder,
    open_datatrove,
    open_shards,
    read_manifest,
    verify_shards,
)
from training.data.tokens import CoveringWindows, TokenWindows, cover

_CHECKED_IDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Both sides of one source as token ids."""

    train: list[TokenFile]
    valid: list[TokenFile]
    valid_bytes: int
    """Length of the held-out text as UTF-8."""
    fingerprint: str
    """Digest of what lies in it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """All sources with the tokenizer they were written with."""

    sources: list[Source]
    tokenizer: Tokenizer
    weights: tuple[float, ...] | None

    @property
    def num_train_tokens(self) -> int:
        """Tokens to train on."""
        return sum(len(tokens.ids) for source in self.sources for tokens in source.train)

    @property
    def num_valid_tokens(self) -> int:
        """Tokens held out."""
        return sum(len(tokens.ids) for source in self.sources for tokens in source.valid)

    @property
    def valid_bytes(self) -> int:
        """Length of the held-out text as UTF-8, to turn a loss into bits per byte."""
        return sum(source.valid_bytes for source in self.sources)

    @property
    def fingerprint(self) -> str:
        """A digest of what is read, and in which shares: a run resumes with the same data only."""
        parts = [fingerprint(self.tokenizer), str(self.weights), *(source.fingerprint for source in self.sources)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def train_batches(
        self, *, block_size: int, stride: int, batch_size: int, seed: int, document_mask: bool = False
    ) -> Batches:
        """Return the batch of each step: windows of all sources, or each source's in its share.

        Raises:
            DataError: a source is too short for one window.
        """
        groups = [source.train for source in self.sources]
        if self.weights is None:
            groups = [[tokens for group in groups for tokens in group]]
        windows = [
            TokenWindows(
                [tokens.ids for tokens in group],
                block_size=block_size,
                stride=stride,
                batch_size=batch_size,
                seed=seed,
                documents=[self._documents(tokens) for tokens in group],
                document_mask=document_mask,
            )
            for group in groups
        ]
        if self.weights is None:
            return windows[0]
        return Mixture(windows, self.weights, batch_size=batch_size, seed=seed)

    def valid_batches(
        self, *, block_size: int, batch_size: int, stride: int, limit: int | None = None, document_mask: bool = False
    ) -> InOrder:
        """Return the held-out text behind an end token, in batches made as they are needed; see `covering_batches`."""
        rows = [
            CoveringWindows(
                tokens.ids, block_size, stride, self.tokenizer.eos_id, self._documents(tokens), document_mask
            )
            for source in self.sources
            for tokens in source.valid
            if len(tokens.ids)
        ]
        return cover(rows, batch_size=batch_size, limit=limit)

    def _documents(self, tokens: TokenFile) -> Documents:
        return Documents(tokens.ids, tokens.ends, self.tokenizer.eos_id)


def load_corpus(config: PretrainConfig, folder: Path, *, tokenizer: Tokenizer | None = None) -> Corpus:
    """Open what `config.data` names, preparing texts in `folder` first; what lies there whole is used again.

    Args:
        config: `data`, `weights`, `tokenizer`, `vocab_size` and `valid_fraction` are read.
        folder: receives the shards of texts, and the vocabulary if one is trained.
        tokenizer: that of the checkpoint to start from; None: `config.tokenizer`, else that of the first prepared
            folder, else a vocabulary is trained on the texts.

    Raises:
        DataError: data is missing, empty, too short, or belongs to another tokenizer.
        TokenizerError: the tokenizer cannot be read.
    """
    tokenizer = tokenizer or find_tokenizer(config, folder)
    paths: list[tuple[Path, ...]] = [(path,) for path in config.data]
    if config.weights is None:  # texts are one source, of which a share is held out as a whole
        texts = tuple(path for path in config.data if not is_prepared(path))
        paths = [(path,) for path in config.data if is_prepared(path)] + ([texts] if texts else [])
    sources = [open_source(config, some, folder / f"{i:02d}", tokenizer) for i, some in enumerate(paths)]
    return Corpus(sources, tokenizer, config.weights)


def find_tokenizer(config: PretrainConfig, folder: Path) -> Tokenizer:
    """Return the tokenizer that is named, or lies beside prepared data; else train one and keep it in `folder`."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer)
    for place in (*config.data, folder / "tokenizer"):
        if (place / "tokenizer.json").exists():
            return Tokenizer.from_directory(place)
    texts = tuple(path for path in config.data if not is_prepared(path))
    if not texts:
        raise DataError(f"--data: {config.data[0]} holds token ids but no tokenizer.json; name theirs with --tokenizer")
    settings = prepare_config(config, texts, folder)
    return train_vocabulary(settings, plan_pieces(settings, folder), folder / "tokenizer")


def verify(paths: Sequence[Path]) -> None:
    """Hold prepared folders to the checksums that they were written with; texts and shards without are left out.

    Raises:
        DataError: naming the first file that has changed.
    """
    for path in paths:
        for folder in (path, path / TRAIN, path / VALID):
            if (folder / MANIFEST).exists():
                verify_shards(folder)


def is_prepared(path: Path) -> bool:
    """Say whether a path holds token ids: written by `groundup data prepare`, one side of that, or by datatrove."""
    return (path / TRAIN / MANIFEST).exists() or is_token_folder(path)


def prepare_config(config: PretrainConfig, texts: tuple[Path, ...], out: Path) -> PrepareConfig:
    """Return how a run prepares its own texts: as it says itself, whatever the environment says."""
    return PrepareConfig.model_construct(
        data=texts,
        out=out,
        vocab_size=config.vocab_size,
        valid_fraction=config.valid_fraction,
        num_workers=1,
        resume=True,
    )


def open_source(config: PretrainConfig, paths: Sequence[Path], folder: Path, tokenizer: Tokenizer) -> Source:
    """Open one prepared folder, or some texts.

    Raises:
        DataError: see `load_corpus`.
    """
    if not is_prepared(paths[0]):
        prepare(prepare_config(config, tuple(paths), folder), tokenizer)
        return open_sides(folder, tokenizer)
    if (paths[0] / TRAIN / MANIFEST).exists():
        return open_sides(paths[0], tokenizer)
    return open_and_split(paths[0], tokenizer, config.valid_fraction)


def open_sides(folder: Path, tokenizer: Tokenizer) -> Source:
    """Open what `groundup data prepare` wrote.

    Raises:
        DataError: it is not whole, or was written with another tokenizer.
    """
    manifests = [read_manifest(folder / side) for side in (TRAIN, VALID)]
    for manifest in manifests:
        check_tokenizer(folder, manifest, tokenizer)
    if not manifests[1].num_tokens:
        raise DataError(f"--data: {folder}: nothing is held out; prepare it with a larger --valid-fraction")
    digest = hashlib.sha256("".join(manifest.model_dump_json() for manifest in manifests).encode()).hexdigest()
    return Source(open_shards(folder / TRAIN), open_shards(folder / VALID), manifests[1].num_bytes, digest)


def check_tokenizer(folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
    """Refuse shards that were written with another tokenizer.

    Raises:
        DataError: naming their folder.
    """
    if manifest.tokenizer_sha256 != fingerprint(tokenizer):
        raise DataError(f"--data: {folder}: the token shards were written with another tokenizer than this one")


def open_and_split(folder: Path, tokenizer: Tokenizer, valid_fraction: float) -> Source:
    """Open a folder of shards that has no sides, and hold out its last documents.

    Raises:
        DataError: the shards do not fit together, or not this tokenizer.
    """
    is_ours = (folder / MANIFEST).exists()
    if is_ours:
        check_tokenizer(folder, read_manifest(folder), tokenizer)
    found = open_shards(folder) if is_ours else open_datatrove(folder, tokenizer.vocab_size)
    files = [tokens for tokens in found if len(tokens.ids)]
    if not files:
        raise DataError(f"--data: {folder}: the token shards are empty")
    for tokens in files:
        largest = max(int(tokens.ids[:_CHECKED_IDS].max()), int(tokens.ids[-_CHECKED_IDS:].max()))
        if largest >= tokenizer.vocab_size:
            raise DataError(f"--data: {folder}: token {largest} is not of this tokenizer; name theirs with --tokenizer")
    train, valid = split_files(files, valid_fraction)
    digest = hashlib.sha256(repr([(len(tokens.ids), len(tokens.ends)) for tokens in files]).encode())
    for tokens in files:
        digest.update(tokens.ids[:_CHECKED_IDS].tobytes() + tokens.ids[-_CHECKED_IDS:].tobytes())
    return Source(train, valid, sum(text_bytes(tokens.ids, tokenizer) for tokens in valid), digest.hexdigest())


def split_files(files: Sequence[TokenFile], valid_fraction: float) -> tuple[list[TokenFile], list[TokenFile]]:
    """Cut a row of shards at a document end, or inside the only document, so that about a share lies behind the cut."""
    sizes = np.cumsum([0, *(len(tokens.ids) for tokens in files)])
    goal = max(1, int(sizes[-1] * (1 - valid_fraction)))
    place = min(int(np.searchsorted(sizes, goal, side="right")) - 1, len(files) - 1)
    tokens, local = files[place], goal - int(sizes[place])
    ends = np.asarray(tokens.ends[:-1])
    if len(ends):
        local = int(ends[min(int(np.searchsorted(ends, local)), len(ends) - 1)])
    num_before = int(np.searchsorted(tokens.ends, local, side="right"))
    head_ends, tail_ends = tokens.ends[:num_before], tokens.ends[num_before:] - np.uint64(local)
    if not num_before or int(head_ends[-1]) != local:
        head_ends = np.append(head_ends, np.uint64(local))
    head, tail = TokenFile(tokens.ids[:local], head_ends), TokenFile(tokens.ids[local:], tail_ends)
    return [*files[:place], head], [tail, *files[place + 1 :]]
