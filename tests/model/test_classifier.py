"""The classifier reads each text's last real token and nothing else decides."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from model.checkpoint import public_views
from model.classifier import GPTClassifier
from model.public_config import config_to_public
from tests.tiny import KINDS, make_config


def test_answer_ignores_padding_and_neighbours() -> None:
    torch.manual_seed(0)
    model = GPTClassifier(make_config("gpt2"), 3).double().eval()
    texts = [torch.randint(384, (length,)) for length in (5, 1, 17)]
    lengths = torch.tensor([5, 1, 17])
    alone = torch.cat([model(text[None], torch.tensor([len(text)])) for text in texts])
    for pad in (0, 383):
        padded = torch.full((3, 30), pad)
        for i, text in enumerate(texts):
            padded[i, : len(text)] = text
        torch.testing.assert_close(model(padded, lengths), alone, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_transformers(kind: str) -> None:
    torch.manual_seed(0)
    config = make_config(kind)
    ours = GPTClassifier(config, 2).eval()
    public = AutoConfig.for_model(**config_to_public(config), num_labels=2, pad_token_id=383)
    theirs = AutoModelForSequenceClassification.from_config(public).eval()
    theirs.load_state_dict(dict(public_views(ours)))
    idx = torch.randint(383, (4, 12))
    idx[0, 7:] = 383
    with torch.no_grad():
        torch.testing.assert_close(ours(idx, torch.tensor([7, 12, 12, 12])), theirs(idx).logits, atol=1e-5, rtol=1e-4)
