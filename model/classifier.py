"""A GPT with a classification head that reads each text's last real token; padding never touches the answer."""

import torch
from torch import Tensor, nn

from model.config import GPTConfig
from model.gpt import GPT


class GPTClassifier(nn.Module):
    """The body of a GPT and one linear score per label, as in the public `*ForSequenceClassification` models."""

    def __init__(self, config: GPTConfig, num_labels: int) -> None:
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.gpt = GPT(config)
        del self.gpt.lm_head  # a classifier stores and loads no next-token head
        self.score = nn.Linear(config.n_embd, num_labels, bias=False)
        nn.init.normal_(self.score.weight, std=0.02)

    def forward(self, idx: Tensor, lengths: Tensor) -> Tensor:
        """Score right-padded texts.

        Args:
            idx: token ids (B, T), each row's text first, then any padding.
            lengths: number of real tokens of each row (B,), at least 1.

        Returns:
            logits (B, num_labels). Attention is causal, so what follows the last real token cannot change them.
        """
        hidden = self.gpt(idx)
        last = hidden[torch.arange(len(idx), device=idx.device), lengths - 1]  # (B, C)
        out: Tensor = self.score(last.to(self.score.weight.dtype))  # a head that trains is finer than a frozen body
        return out

    def num_params(self) -> int:
        """Count the weights."""
        return sum(p.numel() for p in self.parameters())
