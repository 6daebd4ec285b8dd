"""A stand-in for nanoGPT's folder: the names it publishes, around a model of two tables."""

from pathlib import Path

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn

print("peer: imported")

@dataclass
class GPTConfig:
    block_size: int = 8
    vocab_size: int = 65
    n_layer: int = 1
    n_head: int = 1
    n_embd: int = 4
    dropout: float = 0.0
    bias: bool = True

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("peer: number of parameters")
        self.table = nn.Embedding(config.vocab_size, config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)

    def forward(self, idx, targets=None):
        logits = self.head(self.table(idx))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss
"""

PREPARE = """
from pathlib import Path
folder = Path(__file__).parent
text = (folder / "input.txt").read_text()
(folder / "characters").write_text("".join(sorted(set(text))))
"""

TRAIN = """
import sys
from pathlib import Path
import torch
from model import GPT, GPTConfig
assert "--max_iters=3" in sys.argv, sys.argv
shape = {"vocab_size": len(Path("data/shakespeare_char/characters").read_text())}
model = GPT(GPTConfig(**shape))
Path("out-shakespeare-char").mkdir()
torch.save({"model": model.state_dict(), "model_args": shape}, "out-shakespeare-char/ckpt.pt")
"""


def write_peer(folder: Path, train: str = TRAIN) -> Path:
    """Write the stand-in."""
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    (data / "prepare.py").write_text(PREPARE)
    (folder / "model.py").write_text(MODEL)
    (folder / "train.py").write_text(train)
    return folder
