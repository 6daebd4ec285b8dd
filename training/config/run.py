"""What every training run can be told, whatever it trains, and how settings are written down."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
