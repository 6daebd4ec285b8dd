"""Settings of `groundup dpo`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from training.config.finetune import FinetuneConfig
from training.config.run import OptimConfig


class DpoOptimConfig(OptimConfig):
    """How weights move: gently."""

    name: Literal["muon", "adamw"] = "adamw"
    """`adamw` moves everything by AdamW; `muon` moves the blocks' matrices by Muon and the rest by AdamW."""
    lr: float = Field(5e-6, gt=0)
    """Peak learning rate. It suits models of 100M weights and more; a tiny one, or LoRA, takes ten times as much."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay of matrices; norms and biases are spared."""


class DpoConfig(FinetuneConfig):
    """Teach an assistant which of two answers is the better one (direct preference optimization)."""

    data: Path
    """Preferences: `.json` or `.jsonl` of the book's records (instruction, input, chosen, rejected), of prompt, chosen
    and rejected (texts or messages), or of votes from the service (docs/feedback.md)."""
    valid_data: Path | None = None
    """Preferences to validate on, of the same kinds; left out: a share of `data` is held out."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the preferences held out; all those with one prompt are on one side."""
    without: Path | None = None
    """Conversations, or the `responses.jsonl` of an assistant, whose prompts are left out of `data`, so that they can
    still be measured on afterwards."""
    base: Path
    """Assistant to start from, with its tokenizer and chat template; also the reference to stay close to."""
    loss: Literal["sigmoid", "sigmoid_norm"] = "sigmoid"
    """`sigmoid` compares log-probabilities of whole answers, as the paper does; `sigmoid_norm` their means over an
    answer's tokens, as the book does: long answers then weigh no more than short ones."""
    beta: float = Field(0.1, gt=0)
    """How strongly the model is held near the reference: small values let it go far."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of preferences taken to be the wrong way round; above 0 no pair is ever learned for certain."""
    steps: PositiveInt = 200
    """Optimizer steps."""
    batch_size: PositiveInt = 8
    """Pairs of one optimizer step."""
    eval_interval: PositiveInt = 25
    """Steps between two looks at the validation data; the last step always has one."""
    optim: DpoOptimConfig = DpoOptimConfig()
    """The optimizer."""
