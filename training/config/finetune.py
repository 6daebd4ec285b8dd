"""What every run that starts from a trained model can be told: what of it trains, and with which adapters."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from training.config.run import RunConfig


class LoRASettings(BaseModel):
    """Adapters: small updates that train while the model itself stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    rank: PositiveInt | None = None
    """Rank of each update; left out: no adapters."""
    alpha: float | None = Field(None, gt=0)
    """Updates are scaled by alpha / rank; left out: twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs of an update that is left out at random while training."""
    targets: tuple[str, ...] = Field(("all",), min_length=1)
    """Linear layers to adapt, by their public names or the ends of them (`q_proj`, `mlp.c_proj`,
    `layers.0.self_attn.v_proj`); `all`: every one of the blocks."""
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model's own weights, which stay: `bfloat16` halves their memory. Adapters are float32."""


class FinetuneConfig(RunConfig):
    """What every run needs that starts from a trained model."""

    base: Path | None = None
    """Checkpoint to start from, with its tokenizer."""
    trainable: Literal["all", "head"] | PositiveInt = "all"
    """What trains: `all` weights, the `head` alone, or so many of the last blocks, with the norm after them and the
    head."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations zeroed while training; left out: what the base was made with."""
    lora: LoRASettings = LoRASettings()
    """Adapters."""

    @field_validator("trainable", mode="before")
    @classmethod
    def _read_trainable(cls, value: Any) -> Any:
        found = int(value) if isinstance(value, str) and value.isdecimal() else value
        if found in ("all", "head") or (isinstance(found, int) and found >= 1):
            return found
        raise ValueError(f"{value} is neither all nor head nor a number of blocks from 1 on")

    @model_validator(mode="after")
    def _check_trainable(self) -> Self:
        if self.lora.rank is None and self.lora != LoRASettings():
            raise ValueError("--lora.rank: needed for the other settings of --lora to mean anything")
        if self.lora.rank is not None and self.trainable != "all":
            raise ValueError("--trainable and --lora.rank: adapters train instead of weights; leave one of them out")
        if self.base is None and (self.lora.rank is not None or self.trainable != "all"):
            flag = "--lora.rank" if self.lora.rank is not None else "--trainable"
            raise ValueError(f"{flag}: without --base, everything is new and must train")
        return self
