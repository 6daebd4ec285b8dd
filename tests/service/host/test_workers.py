"""What a worker loads: classifiers as scoring functions."""

from pathlib import Path

import torch

from model.checkpoint import load_classifier
from service.host.workers import load_score

ROWS = [[5, 9, 200], [7], [300, 2, 2, 8, 41, 3, 77, 19], [1, 2]]


def test_scores_in_a_batch_equal_scores_alone_and_the_models_own(tiny_checkpoints: Path) -> None:
    score = load_score(tiny_checkpoints / "tiny-spam")
    together = torch.tensor(score(ROWS))
    alone = torch.tensor([score([ids])[0] for ids in ROWS])
    model = load_classifier(tiny_checkpoints / "tiny-spam").eval()
    with torch.no_grad():
        own = torch.cat([model(torch.tensor([ids]), torch.tensor([len(ids)])) for ids in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, own, atol=1e-6, rtol=0)
