"""Room for new tokens in a trained model: further rows in its embeddings, close to the mean of all.

There they are neither favoured nor ruled out before they are learned (Hewitt 2021, "Initializing new word embeddings").
"""

import torch

from model.checkpoint import empty
from model.gpt import GPT

SPREAD = 0.1
"""Standard deviation of new rows around the mean, as a share of that of the known ones: enough to part them."""


@torch.no_grad()
def make_room(model: GPT, vocab_size: int, seed: int) -> GPT:
    """Return a model with at least so many tokens: the same one if it has them, else a larger copy.

    Args:
        seed: of the new rows; no random generator is touched.
    """
    known = model.config.vocab_size
    if vocab_size <= known:
        return model
    config = model.config.model_copy(update={"vocab_size": vocab_size})
    larger = empty(lambda: GPT(config), dtype=model.wte.weight.dtype)
    generator = torch.Generator().manual_seed(seed)
    weights = dict(model.named_parameters())
    for name, parameter in larger.named_parameters():
        old = weights[name]
        if parameter.shape == old.shape:
            parameter.copy_(old)
            continue
        parameter[:known] = old  # (V, C): embeddings, or the output layer where that is apart
        noise = torch.randn(parameter[known:].shape, generator=generator)
        parameter[known:] = old.float().mean(0) + SPREAD * old.float().std(0) * noise
    return larger
