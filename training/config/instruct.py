"""Settings of `groundup instruct`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from model.templates import TemplateName
from training.config.finetune import FinetuneConfig
from training.config.run import OptimConfig

DEFAULT_VALID_FRACTION = 0.1


class InstructOptimConfig(OptimConfig):
    """How weights move."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate: of a small base that was trained here. Models of 100M weights and more want 1e-5 to 1e-4, by
    the optimizer that they were trained by."""


class InstructConfig(FinetuneConfig):
    """Teach a base model to answer."""

    data: Path
    """Conversations: `.json` or `.jsonl` of instruction/input/output, or of `messages` with role and content."""
    base: Path
    """Checkpoint to start from, with its tokenizer."""
    template: TemplateName | None = None
    """How a conversation is written; it is stored with the checkpoint and used to serve it. Left out: as the base
    writes it, or `groundup` where that cannot chat. `alpaca` needs no control tokens."""
    add_tokens: bool = False
    """Add the control tokens that the template needs and the vocabulary lacks; the model grows by their embeddings."""
    loss_on: Literal["answers", "everything"] = "answers"
    """What is learned: only answers with their ends, or prompts too."""
    pack: bool = False
    """Put several conversations into one row as long as the context, none of which sees another: on a GPU far more is
    learned in the same time. A row of `batch_size` then holds as many conversations as fit."""
    split: Literal["random", "order"] = "random"
    """How `data` is divided: by lot, or in its own order as training, test and validation part."""
    valid_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of the conversations held out to look at while training; left out: a tenth, or none with `valid_data`."""
    test_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the conversations held out to be answered at the end; 0: the validation part is answered."""
    valid_data: Path | None = None
    """File of conversations to look at while training, in place of a share of `data`."""
    test_data: Path | None = None
    """File of conversations to be answered at the end, in place of a share of `data`."""
    answer_tokens: PositiveInt = 256
    """Longest answer, in tokens, that is given at the end."""
    sample_answers: int = Field(3, ge=0)
    """Validation prompts to answer at every evaluation, so that progress can be read; 0: none."""
    sample_tokens: PositiveInt = 64
    """Longest of these answers, in tokens."""
    sample_temperature: float = Field(0.0, ge=0, le=2)
    """How freely they are drawn; 0: always the most likely token."""
    steps: PositiveInt = 1000
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Conversations, or packed rows, of one optimizer step."""
    optim: InstructOptimConfig = InstructOptimConfig()
    """The optimizer."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.valid_share + self.test_fraction >= 1:
            raise ValueError("--valid-fraction and --test-fraction: nothing is left to train on; lower one of them")
        if self.test_data is not None and self.test_fraction:
            raise ValueError("--test-fraction: --test-data is the test part; leave one of them out")
        if self.valid_data is not None and self.valid_fraction is not None:
            raise ValueError("--valid-fraction: --valid-data is the validation part; leave one of them out")
        if self.add_tokens and (self.lora.rank is not None or self.trainable != "all"):
            raise ValueError(
                "--add-tokens: new tokens are learned only where all weights train; take a template that the base has "
                "the tokens for, such as alpaca, or leave out --lora.rank and --trainable"
            )
        return self

    @property
    def valid_share(self) -> float:
        """Share of `data` held out to look at while training."""
        if self.valid_data is not None:
            return 0.0
        return self.valid_fraction if self.valid_fraction is not None else DEFAULT_VALID_FRACTION
