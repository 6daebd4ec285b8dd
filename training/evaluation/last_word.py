"""The last word of a passage, as LAMBADA asks for it (Paperno et al. 2016); prompt as lm-evaluation-harness has it."""

import math
from collections.abc import Sequence
from pathlib import Path

from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.data.records import read_records
from training.evaluation.choices import accuracies
from training.evaluation.continuations import encode_pair, score_pairs
from training.evaluation.text import Metrics


def read_passages(path: Path, flag: str = "--last-word") -> list[str]:
    """Read `.jsonl` or `.json` of records with a `text`.

    Raises:
        DataError: unreadable, empty, or a record without a text of at least two words.
    """
    passages = []
    for number, record in enumerate(read_records(path, flag), 1):
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str) or not all(text.rpartition(" ")):
            raise DataError(f"{flag}: {path}: record {number} has no text of two words or more")
        passages.append(text)
    return passages


def last_word_metrics(
    model: GPT, tokenizer: Tokenizer, passages: Sequence[str], *, batch_size: int = 32
) -> tuple[Metrics, list[bool]]:
    """Return how often greedy decoding gives the last word, and its perplexity by word; and which ones it gives.

    Raises:
        DataError: a word alone is longer than the model's context.
    """
    parts = [passage.rpartition(" ") for passage in passages]
    pairs = [encode_pair(before, f" {word}", tokenizer) for before, _, word in parts]
    scores = score_pairs(model, pairs, batch_size=batch_size, title="last words")
    right = [score.is_greedy for score in scores]
    nats = -sum(score.log_prob for score in scores) / len(scores)
    metrics = {
        **accuracies({"acc": sum(right)}, len(right)),
        "perplexity": math.exp(min(nats, 700.0)),  # a larger one is no float
        "num_cut": sum(score.is_cut for score in scores),
    }
    return metrics, right
