"""The checkpoint that is measured, with all that its sections need, loaded when first needed."""

from dataclasses import dataclass
from functools import cached_property

import torch

from model.chat import ChatTemplate
from model.checkpoint import load_gpt
from model.directory import Checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.config.evaluate import EvaluateConfig
from training.machine.device import pick_device


@dataclass(frozen=True)
class Measured:
    """A checkpoint that is measured, loaded when it is first needed."""

    config: EvaluateConfig
    checkpoint: Checkpoint
    tokenizer: Tokenizer

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.config.device)

    @cached_property
    def model(self) -> GPT:
        return load_gpt(self.checkpoint.path, device=self.device)

    @cached_property
    def template(self) -> ChatTemplate:
        return ChatTemplate.from_directory(self.checkpoint.path, self.tokenizer)
