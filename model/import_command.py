"""`groundup import`: a model in another project's file, or one that lacks a tokenizer, becomes a checkpoint directory.

It recognises what it is given by what it holds; the formats themselves are those of `model.foreign`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from model.directory import CHAT_TEMPLATE_FILE, CONFIG_FILE, CheckpointError, read_checkpoint
from model.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from model.foreign.foreign_model import ForeignModel
    from model.gpt import GPT

FILES = ("ckpt.pt", "consolidated.00.pth")
"""What a folder of nanoGPT and one of Meta hold."""
GPT2_VOCABULARIES = (50257, 50304)
"""GPT-2's number of tokens, as it is and rounded up to a multiple of 64."""


class ImportConfig(BaseSettings):
    """Turn the weights of another project into a checkpoint directory that everything here and elsewhere loads."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="GROUNDUP_IMPORT_", use_attribute_docstrings=True
    )

    source: CliPositionalArg[Path]
    """nanoGPT's `ckpt.pt`, the book's `model.pth`, Meta's `consolidated.00.pth`, a folder with one of them, or a
    Hugging Face directory."""
    out: Path
    """Directory to write the checkpoint to."""
    overwrite: bool = False
    """Replace a checkpoint that is already there."""
    tokenizer: str | None = None
    """Published vocabulary (`gpt2`) or directory with a `tokenizer.json`; left out: the source's own, or `gpt2` where
    the number of tokens is GPT-2's."""
    n_head: PositiveInt | None = None
    """Attention heads, for a model of the book whose width is not one of GPT-2's."""
    block_size: PositiveInt | None = None
    """Context length in tokens, for Meta's files."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Store weights in this type; left out: as in the source, or in float32 from a Hugging Face directory."""


def run(config: ImportConfig) -> None:
    """Read the source and write the checkpoint.

    Raises:
        ValueError: the source cannot be read, a setting is missing, or the checkpoint cannot be written.
    """
    if config.out.exists() and not config.overwrite:
        raise CheckpointError(f"--out: {config.out} exists; choose another place, or replace it with --overwrite")

    import torch  # takes seconds to import, and --help needs none of it

    from model.checkpoint import save_checkpoint

    is_public = (config.source / CONFIG_FILE).exists()
    model, tokenizer, origin = _read_public(config) if is_public else _read_foreign(config)
    saved = save_checkpoint(
        config.out,
        model,
        tokenizer,
        model_card=f"# {config.out.name}\n\n{model.num_params():,} weights, from `{config.source.name}` ({origin}).\n",
        chat_template=_read_template(config.source),
        eos_token_ids=(read_checkpoint(config.source).eos_token_ids or None) if is_public else None,
        dtype=None if config.dtype is None else getattr(torch, config.dtype),
    )
    print(f"{saved.path}: {saved.kind} model, {model.num_params():,} weights, context {model.config.block_size}")


def _read_public(config: ImportConfig) -> "tuple[GPT, Tokenizer, str]":
    from model.checkpoint import load_gpt

    tokenizer = load_tokenizer(config.tokenizer or config.source)
    return load_gpt(config.source), tokenizer, "a Hugging Face directory"


def _read_foreign(config: ImportConfig) -> "tuple[GPT, Tokenizer, str]":
    foreign = open_source(config)
    tokenizer = _choose_tokenizer(config, foreign.config.vocab_size)
    return foreign.load(), tokenizer, foreign.origin


def _read_template(source: Path) -> str | None:
    file = source / CHAT_TEMPLATE_FILE
    return file.read_text("utf-8") if file.exists() else None


def open_source(config: ImportConfig) -> "ForeignModel":
    """Open the file of another project.

    Raises:
        CheckpointError: it is damaged, unsafe or of no known format, or a setting is needed.
    """
    from model.foreign.book import is_book, open_book
    from model.foreign.meta_llama import is_meta_llama, open_meta_llama
    from model.foreign.nanogpt import is_nanogpt, open_nanogpt
    from model.tensor_files import mapped_pickle

    file = next((config.source / name for name in FILES if (config.source / name).exists()), config.source)
    if file.is_dir():
        raise CheckpointError(f"{file}: holds neither {CONFIG_FILE} nor {' nor '.join(FILES)}; name the file itself")
    content = mapped_pickle(file)
    if isinstance(content, dict):
        if is_nanogpt(content):
            return open_nanogpt(file, content)
        if is_book(content):
            return open_book(file, content, config.n_head)
        if is_meta_llama(content):
            return open_meta_llama(file, content, config.block_size)
    raise CheckpointError(f"{file}: holds no model of nanoGPT, the book's GPTModel or Meta's Llama")


def _choose_tokenizer(config: ImportConfig, vocab_size: int) -> Tokenizer:
    if config.tokenizer is None and vocab_size not in GPT2_VOCABULARIES:
        raise CheckpointError(
            f"--tokenizer: required: a model of {vocab_size} tokens does not use GPT-2's vocabulary; "
            "name a directory with its tokenizer.json"
        )
    tokenizer = load_tokenizer(config.tokenizer or "gpt2")
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(f"--tokenizer: has {tokenizer.vocab_size} tokens, but the model only {vocab_size}")
    return tokenizer
