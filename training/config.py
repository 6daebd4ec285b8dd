"""What a training run can be told: frozen configs whose field strings are also the help text.

Free of torch, so that `groundup VERB --help` is quick. Nothing here opens a file or knows how training works.
"""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from model.config import PRESETS, Family, GPTConfig


class ModelShape(BaseModel):
    """Sizes of a model trained from scratch; the tokenizer brings the vocabulary."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    family: Family = "llama"
    """`gpt2` (LayerNorm, learned positions, GELU) or `llama` (RMSNorm, rotary positions, SwiGLU)."""
    block_size: PositiveInt = 128
    """Context length in tokens."""
    n_layer: PositiveInt = 4
    """Transformer layers."""
    n_head: PositiveInt = 4
    """Attention heads."""
    n_kv_head: PositiveInt | None = None
    """Key and value heads; left out: as many as `n_head`."""
    n_embd: PositiveInt = 128
    """Width of the hidden states."""
    n_inner: PositiveInt | None = None
    """Width inside the MLP; left out: four times `n_embd`, or two thirds of that for the gated MLP of `llama`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations zeroed while training."""
    tie_embeddings: bool = True
    """Share the weights of the embedding and of the output layer."""
    qk_norm: bool = False
    """Normalize queries and keys in each head, as Qwen3 does: steadier at high learning rates."""
    vocab_multiple: PositiveInt = 1
    """Round the vocabulary up to a multiple of this; GPUs like 64."""
    embedding_std: float = Field(0.02, gt=0)
    """Spread of the initial embeddings; 1, PyTorch's and the book's, learns a short text by heart in few steps."""

    def build(self, vocab_size: int, preset: GPTConfig | None = None) -> GPTConfig:
        """Return the model config of this shape for a vocabulary.

        Args:
            vocab_size: of the tokenizer; rounded up to `vocab_multiple`.
            preset: a named shape, of which only what was set here is replaced.

        Raises:
            ValueError: the sizes do not fit together.
        """
        padded = -(-vocab_size // self.vocab_multiple) * self.vocab_multiple
        own = self.model_dump(exclude={"vocab_multiple", "embedding_std"}, exclude_unset=preset is not None)
        try:
            return GPTConfig.model_validate({**(preset.model_dump() if preset else {}), **own, "vocab_size": padded})
        except ValidationError as error:
            raise ValueError(f"--model: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


class OptimConfig(BaseModel):
    """How weights move."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: Literal["muon", "adamw"] = "muon"
    """`muon` moves the blocks' matrices by Muon and the rest by AdamW; `adamw` moves everything by AdamW."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate. Muon's updates are scaled to AdamW's size, so that one number serves both."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of matrices; norms and biases are spared."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay of the mean gradient."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Muon's momentum."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient; a larger one is scaled down to it."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """How the rate falls after the warm-up; `wsd` holds it and falls at the end only (warm-up, stable, decay)."""
    decay: float = Field(0.2, gt=0, le=1)
    """`wsd`: share of the steps, at the end, over which the rate falls linearly."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises from zero."""
    final_lr: float = Field(0.05, ge=0, le=1)
    """Rate of the last step as a share of the peak."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError("--optim.warmup and --optim.decay: more than the whole run; lower one of them")
        return self


class RunConfig(BaseSettings):
    """What every training run needs, whatever it trains."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix="GROUNDUP_TRAIN_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    out: Path
    """Directory to write the checkpoint to."""
    overwrite: bool = False
    """Replace a checkpoint that is already there."""
    steps: PositiveInt = 1000
    """Optimizer steps."""
    batch_size: PositiveInt = 16
    """Rows of one optimizer step."""
    micro_batch_size: PositiveInt | None = None
    """Rows of one forward and backward pass; less than the batch size saves memory, never changes the result."""
    eval_interval: PositiveInt = 100
    """Steps between two looks at the validation data; the last step always has one."""
    keep_best: bool = True
    """Save the weights of the lowest validation loss instead of the last ones."""
    patience: PositiveInt | None = None
    """Stop early after so many looks at the validation data without a lower loss; left out: never."""
    resume: bool = False
    """Go on from the last snapshot of an interrupted run to the same place; start afresh where there is none. Its
    settings must be the same, apart from how and where it computes (devices, processes, threads, snapshots)."""
    save_interval: PositiveInt | None = None
    """Steps between two snapshots, from which an interrupted run resumes bit for bit; left out: `eval_interval`."""
    keep_last: PositiveInt = 2
    """Snapshots to keep; older ones are removed."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; left out: none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes in bfloat16 where that is safe (autocast); weights and optimizer stay in float32."""
    compile: bool = False
    """Compile the model: slow to start, faster from then on."""
    recompute: bool = False
    """Keep only the input of each layer and compute the rest again in the backward pass: slower, far less memory."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: `ddp` copies the weights to every process, `fsdp` shares them out."""
    tensorboard: Path | None = None
    """Folder that also receives the metrics as TensorBoard events."""
    seed: int = Field(123, ge=0, lt=2**63)
    """Fixes initial weights, data order and dropout."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""
    device: str = "auto"
    """`auto` takes a GPU if there is one; else `cpu`, `cuda`, `cuda:1`, ..."""
    num_threads: PositiveInt | None = None
    """CPU threads of the tensor library; left out: its own choice."""

    @field_validator("out")
    @classmethod
    def _need_name(cls, value: Path) -> Path:
        if value.name in ("", ".."):
            raise ValueError(f"{value} is no name for a checkpoint; add one")
        return value

    def to_toml(self) -> str:
        """Write the resolved settings as TOML; what is absent (None) is left out, and whether the run went on."""
        return render_toml(self.model_dump(mode="json", exclude_none=True, exclude={"resume"}))


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


class ClassifyConfig(RunConfig):
    """Teach a model to label texts."""

    data: Path
    """Labelled texts: `.csv`, `.tsv`, `.jsonl`, or lines of label TAB text."""
    text_column: str | None = None
    """Column of the texts; left out: found by its usual names."""
    label_column: str | None = None
    """Column of the labels; left out: found by its usual names."""
    base: Path | None = None
    """Checkpoint to start from, with its tokenizer; left out: from scratch."""
    vocab_size: int = Field(512, ge=262)
    """Without a base: size of the vocabulary to train on the training texts."""
    balance: bool = False
    """Drop texts of the larger classes until all are as large as the smallest."""
    deduplicate: bool = True
    """Drop texts that repeat an earlier one, so that none sits on both sides of a split."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of each class held out to choose the weights by."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class held out to report on."""
    split_seed: int = Field(123, ge=0, lt=2**63)
    """Fixes what is dropped and how the rest is split, apart from `seed`."""
    warmup_lm_steps: int = Field(1000, ge=0)
    """Without a base: steps of next-token training on the training texts before the classes are learned."""
    max_length: PositiveInt | None = None
    """Longest text in tokens; longer ones are cut and counted. Left out: the context length."""
    steps: PositiveInt = 100
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Texts of one optimizer step."""
    optim: OptimConfig = OptimConfig(lr=2e-3)
    """The optimizer."""
    eval_interval: PositiveInt = 25
    """Steps between two looks at the validation data; the last step always has one."""
    model: ModelShape = ModelShape(block_size=256, n_layer=2, n_head=4, n_embd=64, dropout=0.1)
    """The model, when it starts from scratch."""

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        self.model.build(self.vocab_size)
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("--valid-fraction and --test-fraction must leave something to train on")
        return self


class InstructConfig(RunConfig):
    """Teach a base model to answer."""

    data: Path
    """Conversations: `.json` or `.jsonl` of instruction/input/output, or of `messages` with role and content."""
    base: Path
    """Checkpoint to start from, with its tokenizer."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the conversations held out."""
    steps: PositiveInt = 1000
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Conversations of one optimizer step."""
    optim: OptimConfig = OptimConfig(lr=2e-3)
    """The optimizer."""


class DemoConfig(BaseSettings):
    """Train the three demo models - base, assistant, spam classifier - from generated data."""

    model_config = RunConfig.model_config

    full: bool = False
    """Train the better models, for up to an hour, instead of the quick ones in under five minutes."""
    out: Path = Path("runs/demo")
    """Directory that receives the three checkpoints."""
    overwrite: bool = False
    """Replace checkpoints that are already there."""
    seed: int = Field(123, ge=0, lt=2**63)
    """Fixes data, initial weights and order."""
    num_threads: PositiveInt | None = None
    """CPU threads of the tensor library; left out: its own choice."""


class EvaluateConfig(BaseSettings):
    """Measure a checkpoint on a file."""

    model_config = RunConfig.model_config

    checkpoint: CliPositionalArg[Path]
    """Checkpoint directory. Its kind decides what is measured: text, labelled texts or conversations."""
    data: Path
    """Text file for a base model, labelled texts for a classifier, conversations for an assistant."""
    text_column: str | None = None
    """Classifier: column of the texts; left out: found by its usual names."""
    label_column: str | None = None
    """Classifier: column of the labels; left out: found by its usual names."""
    batch_size: PositiveInt = 32
    """Rows evaluated together."""
    limit: PositiveInt | None = None
    """Look at the first so many examples only."""
    max_tokens: PositiveInt = 64
    """Assistant: longest answer."""
    device: str = "auto"
    """`auto` takes a GPU if there is one; else `cpu`, `cuda`, ..."""


def render_toml(values: dict[str, Any]) -> str:
    """Write one level of values and one level of tables."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {render_value(value)}" for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {render_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def render_value(value: Any) -> str:
    """Write a scalar or a list as JSON, which is valid TOML but for escaped surrogates and a bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
