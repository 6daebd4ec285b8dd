"""Settings of `groundup pretrain`."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from model.config import PRESETS
from training.config.run import RunConfig, render_toml
from training.config.shape import ModelShape


class PretrainConfig(RunConfig):
    """Teach a model to continue text."""

    data: tuple[Path, ...] = Field(min_length=1)
    """Text (`.txt`, `.jsonl`, `.csv`, `.parquet`, also `.gz`; files, folders or globs) or folders of token shards."""
    weights: tuple[PositiveFloat, ...] | None = None
    """Share of each `data` in what is read, in the same order; left out: as much as each is large."""
    base: Path | None = None
    """Checkpoint whose weights and tokenizer to start from, with a fresh schedule; left out: from scratch."""
    preset: str | None = None
    """Named shape, such as `gpt2-small`; what is given by `--model.*` replaces its parts. Left out: `model` alone."""
    steps: PositiveInt = 2000
    """Optimizer steps."""
    batch_size: PositiveInt = 16
    """Windows of one optimizer step."""
    tokenizer: str | None = None
    """Directory with a `tokenizer.json`, or `gpt2`; left out: a vocabulary is trained on the training text."""
    vocab_size: int = Field(1024, ge=262)
    """Size of the vocabulary to train: 256 bytes, the special tokens, and merges."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share held out: the last characters of a single document, else whole documents chosen by their content."""
    stride: PositiveInt | None = None
    """Tokens between the starts of neighbouring windows; left out: an eighth of the context."""
    document_mask: bool = False
    """Let no token see another document that lies in the same window."""
    eval_tokens: PositiveInt | None = None
    """Held-out tokens to look at while training; left out: all. The final figures always come from all."""
    sample_prompts: tuple[str, ...] = ("",)
    """Texts to continue at every evaluation, so that progress can be read; empty: from the start of a document."""
    sample_tokens: int = Field(50, ge=0)
    """Tokens of each sample; 0: no samples."""
    verify_data: bool = False
    """Read prepared shards before the first step and hold them to their checksums; left out: to their sizes only."""
    model: ModelShape = ModelShape()
    """The model."""

    @field_validator("data", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("preset")
    @classmethod
    def _know_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise ValueError(f"unknown; one of {', '.join(PRESETS)}")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.data):
            raise ValueError(f"--weights: {len(self.weights)} shares for {len(self.data)} times --data")
        if self.base is None:
            self.model.build(self.vocab_size, PRESETS[self.preset] if self.preset is not None else None)
        else:
            sizes = sorted(self.model.model_fields_set - {"dropout"})
            if sizes:
                raise ValueError(f"--model.{sizes[0].replace('_', '-')}: --base brings its own shape; leave it out")
            for name in ("preset", "tokenizer"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name}: --base brings its own; leave it out")
        return self

    def to_toml(self) -> str:
        """Write the resolved settings as TOML; of a shape that is given otherwise, only what was set apart from it."""
        settings = self.model_dump(mode="json", exclude_none=True, exclude={"resume"})
        if self.preset is not None or self.base is not None:
            settings["model"] = self.model.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return render_toml(settings)
