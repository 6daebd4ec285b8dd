"""Settings of `groundup classify`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from training.config.finetune import FinetuneConfig
from training.config.label_names import LabelNames
from training.config.run import OptimConfig
from training.config.shape import ModelShape

WARMUP_LM_STEPS = 1000
"""Steps of next-token training on the training texts, where there is no base that knows language."""


class ClassifyOptimConfig(OptimConfig):
    """How weights move, in finetuning's steps."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate. Muon's updates are scaled to AdamW's size, so that one number serves both."""


class ClassifierShape(ModelShape):
    """Sizes of a classifier trained from scratch: small, for there are few texts."""

    block_size: PositiveInt = 256
    """Context length in tokens."""
    n_layer: PositiveInt = 2
    """Transformer layers."""
    n_embd: PositiveInt = 64
    """Width of the hidden states."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of activations zeroed while training."""


class ClassifyConfig(FinetuneConfig):
    """Teach a model to label texts."""

    data: Path
    """Labelled texts: `.csv`, `.tsv`, `.jsonl`, `.json`, or lines of label TAB text; also gzipped (`.gz`)."""
    valid_data: Path | None = None
    """Labelled texts to choose the weights by; left out: `valid_fraction` of `data`."""
    test_data: Path | None = None
    """Labelled texts to report on; left out: `test_fraction` of `data`."""
    text_column: str | None = None
    """Column of the texts; left out: found by its usual names."""
    label_column: str | None = None
    """Column of the labels; left out: found by its usual names."""
    label_names: LabelNames = ()
    """Better names for labels, such as `0=negative` and `1=positive`."""
    multi_label: bool = False
    """A text may have several labels or none: in JSON as a list, else as one field."""
    label_separator: str = Field(",", min_length=1)
    """With `multi_label`: what stands between the labels in one field."""
    vocab_size: int = Field(512, ge=262)
    """Without a base: size of the vocabulary to train on the training texts."""
    balance: Literal["none", "weights", "undersample", "undersample-all"] = "none"
    """What to do about classes of different sizes: `weights` gives each the same say in the loss; `undersample` drops
    training texts of the larger ones; `undersample-all` drops them before the split, so that the test is even, too."""
    deduplicate: bool = True
    """Drop texts that repeat an earlier one but for letter case and white space, so that none sits on both sides of a
    split. Files given by `valid_data` and `test_data` stay whole: what they hold is dropped from training."""
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of each class held out to choose the weights by; not used with `valid_data`."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class held out to report on; not used with `test_data`."""
    split_seed: int = Field(123, ge=0, lt=2**63)
    """Fixes what is dropped and how the rest is split, apart from `seed`."""
    warmup_lm_steps: int | None = Field(None, ge=0)
    """Steps of next-token training on the training texts before the classes are learned; left out: 1000 without a
    base, none with one."""
    warmup_lm_lr: float = Field(3e-3, gt=0)
    """Peak learning rate of those steps."""
    max_length: PositiveInt | None = None
    """Longest text in tokens; longer ones are cut and counted. Left out: the context length."""
    cut: Literal["end", "start"] = "end"
    """What a text that is too long loses. Reviews often come to their point at the end; clients of a server then
    send `truncation_side: "left"`."""
    steps: PositiveInt = 100
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Texts of one optimizer step."""
    optim: ClassifyOptimConfig = ClassifyOptimConfig()
    """The optimizer."""
    eval_interval: PositiveInt = 25
    """Steps between two looks at the validation data; the last step always has one."""
    model: ClassifierShape = ClassifierShape()
    """The model, when it starts from scratch."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        self.model.build(self.vocab_size)
        held_out = (0 if self.valid_data else self.valid_fraction) + (0 if self.test_data else self.test_fraction)
        if held_out >= 1:
            raise ValueError("--valid-fraction and --test-fraction must leave something to train on")
        if self.multi_label and self.balance.startswith("undersample"):
            raise ValueError("--balance: texts with several labels cannot be dropped by class; use weights")
        if self.lora.rank is not None and self.warmup_lm_steps:
            raise ValueError("--warmup-lm-steps: would change the base that --lora.rank adapts; leave one of them out")
        return self

    @property
    def num_reading_steps(self) -> int:
        """Steps of next-token training before the classes are learned."""
        if self.warmup_lm_steps is not None:
            return self.warmup_lm_steps
        return WARMUP_LM_STEPS if self.base is None else 0
