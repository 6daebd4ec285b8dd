"""Score the text that a language model predicts: loss, perplexity, bits per byte."""

import math
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tqdm import tqdm

from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.data.ids import Ids
from training.data.tokens import CoveringWindows, cover
from training.loss import Batch, next_token_scores, readable
from training.machine.totals import Totals

Metrics = dict[str, float]


@torch.inference_mode()
def loss_metrics(model: GPT, batches: Sequence[Batch]) -> Metrics:
    """Return loss in nats, perplexity, and how often the most likely token is right."""
    model.eval()
    device = model.wte.weight.device
    totals = Totals()
    for batch in tqdm(batches, desc="evaluate", unit="batch", leave=False, disable=None):
        totals.add(next_token_scores(model, {name: tensor.to(device) for name, tensor in batch.items()}))
    return {**readable(totals.means()), "num_targets": int(totals.count)}


def text_metrics(model: GPT, documents: Iterable[str], tokenizer: Tokenizer, *, batch_size: int = 32) -> Metrics:
    """Score some documents, laid out as in training, read once and never all in memory; see `token_metrics`.

    Raises:
        DataError: there is no text.
    """
    with tempfile.TemporaryFile() as file:
        num_bytes = 0
        for text in documents:
            np.array([*tokenizer.bos_ids, *tokenizer.encode(text), tokenizer.eos_id], dtype=np.uint32).tofile(file)
            num_bytes += len(text.encode())
        file.flush()
        ids: Ids = np.memmap(file, dtype=np.uint32, mode="r") if num_bytes else np.empty(0, np.uint32)
        return token_metrics(model, [ids], tokenizer, num_bytes=num_bytes, batch_size=batch_size)


def token_metrics(
    model: GPT, shards: Sequence[Ids], tokenizer: Tokenizer, *, num_bytes: int, batch_size: int = 32
) -> Metrics:
    """Score every token of a text, end tokens included, each seen with at least half a context before it.

    Each shard stands behind the token that opens a text, its own or one put there, or else behind an end token: its
    first token is predicted too. Bits per byte count the UTF-8 bytes of the text (`num_bytes`), so models with
    different vocabularies compare.

    Raises:
        DataError: there is no text.
    """
    block_size = model.config.block_size
    *_, before = (tokenizer.eos_id, *tokenizer.bos_ids)
    texts = [_without_opening(ids, tokenizer) for ids in shards]
    rows = [CoveringWindows(ids, block_size, max(1, block_size // 2), before, None, False) for ids in texts if len(ids)]
    if not rows or not num_bytes:
        raise DataError("--data: there is no text in it")
    metrics = loss_metrics(model, cover(rows, batch_size=batch_size))
    bits = metrics["loss"] * metrics["num_targets"] / math.log(2)
    return {**metrics, "bits_per_byte": bits / num_bytes, "num_bytes": num_bytes}


def _without_opening(ids: Ids, tokenizer: Tokenizer) -> Ids:
    """Leave out the token that opens the first text, so that it does not stand there twice."""
    count = len(tokenizer.bos_ids)
    return ids[count:] if count and tuple(ids[:count].tolist()) == tuple(tokenizer.bos_ids) else ids
