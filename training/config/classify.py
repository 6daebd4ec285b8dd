"""Settings of `groundup classify`."""

from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from training.config.run import OptimConfig, RunConfig
from training.config.shape import ModelShape


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
