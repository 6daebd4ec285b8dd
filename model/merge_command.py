"""`groundup merge`: a base and an adapter, ours or PEFT's, become one checkpoint that needs neither."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from model.chat import ChatTemplate
from model.directory import CONFIG_FILE, TOKENIZER_FILE, CheckpointError, has_chat_template, is_adapter, read_checkpoint
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from model.adapter_directory import StoredAdapter


class MergeConfig(BaseSettings):
    """Merge an adapter into its base."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="GROUNDUP_MERGE_", use_attribute_docstrings=True
    )

    adapter: CliPositionalArg[Path]
    """Adapter directory: `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them."""
    base: Path | None = None
    """Checkpoint that the adapter was made for; left out: the one it names, where that is a directory here."""
    out: Path
    """Directory to write the checkpoint to."""
    overwrite: bool = False
    """Replace a checkpoint that is already there."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Store weights in this type. Merging is exact in float32; `bfloat16` rounds the sum."""


def run(config: MergeConfig) -> None:
    """Merge and write the checkpoint.

    Raises:
        ValueError: adapter or base cannot be read or do not belong together, or the checkpoint cannot be written.
    """
    if config.out.exists() and not config.overwrite:
        raise CheckpointError(f"--out: {config.out} exists; choose another place, or replace it with --overwrite")
    if not is_adapter(config.adapter):
        raise CheckpointError(f"{config.adapter}: holds no adapter_config.json; give the directory of an adapter")

    import torch  # takes seconds to import, and --help needs none of it

    from model.adapter_directory import read_adapter
    from model.checkpoint import load_merged, save_checkpoint

    stored = read_adapter(config.adapter)
    base = choose_base(config.base, stored)
    model = load_merged(stored, base)
    described = read_checkpoint(config.adapter if (config.adapter / CONFIG_FILE).exists() else base)
    own = config.adapter if (config.adapter / TOKENIZER_FILE).exists() else base
    tokenizer = Tokenizer.from_directory(own)
    labels = None
    if stored.num_labels is not None:
        is_known = len(described.labels) == stored.num_labels
        labels = described.labels if is_known else [f"LABEL_{i}" for i in range(stored.num_labels)]
    chat_template, eos_token_ids = None, described.eos_token_ids
    if labels is None and has_chat_template(own):
        chat_template = ChatTemplate.from_directory(own, tokenizer).source
    elif labels is None and described.kind == "chat":
        chat_template = ChatTemplate.from_directory(described.path, tokenizer).source
    if own == config.adapter and described.path != config.adapter:  # PEFT's has no config.json that names its end token
        eos_token_ids = tuple(dict.fromkeys([tokenizer.eos_id, *eos_token_ids]))
    saved = save_checkpoint(
        config.out,
        model,
        tokenizer,
        model_card=f"# {config.out.name}\n\n`{base.name}` with the adapter `{config.adapter.name}` merged into it.\n",
        chat_template=chat_template,
        labels=labels,
        is_multi_label=described.is_multi_label,
        eos_token_ids=eos_token_ids or None,
        dtype=getattr(torch, config.dtype),
    )
    print(f"{saved.path}: {saved.kind} model, {model.num_params():,} weights, context {model.config.block_size}")


def choose_base(given: Path | None, stored: "StoredAdapter") -> Path:
    """Return the base that an adapter belongs to.

    Raises:
        CheckpointError: none is given, and the one that the adapter names is not here.
    """
    if given is not None:
        return given
    named = stored.config.base
    if named is None or not Path(named).is_dir():
        raise CheckpointError(
            f"--base: required: {stored.path} was made for {named or 'a base that it does not name'}, "
            "which is no directory here"
        )
    return Path(named)
