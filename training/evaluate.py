"""Measure a model on held-out data: text, labels or answers.

The numbers are plain dictionaries; which data is fair to test on is the caller's business.
"""

import itertools
import json
import math
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model.chat import ChatTemplate
from model.checkpoint import load_classifier, load_gpt
from model.classifier import GPTClassifier
from model.directory import Checkpoint, read_checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.config.evaluate import EvaluateConfig
from training.data.classification import TextBatches, read_examples
from training.data.corpus import is_prepared
from training.data.encoding import fingerprint, text_bytes
from training.data.errors import DataError
from training.data.holdout import VALID
from training.data.ids import Ids
from training.data.instruction import Conversation, ConversationBatches, read_conversations
from training.data.shards import MANIFEST, TokenFile, open_datatrove, open_shards, read_manifest
from training.data.slices import cut_files, find_files
from training.data.sources import Reader
from training.data.tokens import CoveringWindows, cover
from training.decode import greedy_answers
from training.device import pick_device
from training.loss import Batch, next_token_scores, readable
from training.totals import Totals

Metrics = dict[str, float]


def run(config: EvaluateConfig) -> None:
    """Measure a checkpoint on a file and print the result as JSON.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the data cannot be used with it.
    """
    checkpoint = read_checkpoint(config.checkpoint)
    tokenizer = Tokenizer.from_directory(checkpoint.path)
    measure = {"base": measure_text, "chat": measure_answers, "classifier": measure_labels}[checkpoint.kind]
    metrics = measure(config, checkpoint, tokenizer)
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")


def measure_text(config: EvaluateConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> Metrics:
    """Score texts, or the held-out side of prepared ones, with a base model."""
    model = load_gpt(checkpoint.path, device=pick_device(config.device))
    if is_prepared(config.data):
        files, num_bytes = open_tokens(config.data, tokenizer)
        return token_metrics(
            model, [tokens.ids for tokens in files], tokenizer, num_bytes=num_bytes, batch_size=config.batch_size
        )
    documents = itertools.islice(read_texts(config.data, config.text_column), config.limit)
    return text_metrics(model, documents, tokenizer, batch_size=config.batch_size)


def measure_labels(config: EvaluateConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> Metrics:
    """Score a file of labelled texts with a classifier."""
    examples = read_examples(config.data, config.text_column, config.label_column)[: config.limit]
    texts = TextBatches(examples, checkpoint.labels, tokenizer, max_length=checkpoint.config.block_size)
    model = load_classifier(checkpoint.path, device=pick_device(config.device))
    return label_metrics(predict(model, texts.in_order(config.batch_size)), texts.labels, len(checkpoint.labels))


def measure_answers(config: EvaluateConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> Metrics:
    """Score a file of conversations with an assistant."""
    conversations = read_conversations(config.data)[: config.limit]
    template = ChatTemplate.from_directory(checkpoint.path, tokenizer)
    model = load_gpt(checkpoint.path, device=pick_device(config.device))
    batches = ConversationBatches(conversations, template, tokenizer, block_size=model.config.block_size)
    answers = answer(
        model, conversations, template, tokenizer, end_ids=checkpoint.eos_token_ids, max_tokens=config.max_tokens
    )
    wanted = [messages[-1]["content"] for messages in conversations]
    return {**loss_metrics(model, batches.in_order(config.batch_size)), "exact_match": exact_match(answers, wanted)}


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
    """Score some documents, which are read once and never all in memory; see `token_metrics`.

    Raises:
        DataError: there is no text.
    """
    with tempfile.TemporaryFile() as file:
        num_bytes = 0
        for text in documents:
            np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype=np.uint32).tofile(file)
            num_bytes += len(text.encode())
        if not num_bytes:
            raise DataError("--data: there is no text in it")
        file.flush()
        ids = np.memmap(file, dtype=np.uint32, mode="r")
        return token_metrics(model, [ids], tokenizer, num_bytes=num_bytes, batch_size=batch_size)


def token_metrics(
    model: GPT, shards: Sequence[Ids], tokenizer: Tokenizer, *, num_bytes: int, batch_size: int = 32
) -> Metrics:
    """Score every token of a text, end tokens included, each seen with at least half a context before it.

    Each shard stands behind the token that opens a text, or an end token: its first token is predicted too. Bits per
    byte count the UTF-8 bytes of the text (`num_bytes`), so models with different vocabularies compare.
    """
    block_size = model.config.block_size
    *_, before = (tokenizer.eos_id, *tokenizer.bos_ids)
    rows = [
        CoveringWindows(ids, block_size, max(1, block_size // 2), before, None, False) for ids in shards if len(ids)
    ]
    metrics = loss_metrics(model, cover(rows, batch_size=batch_size))
    bits = metrics["loss"] * metrics["num_targets"] / math.log(2)
    return {**metrics, "bits_per_byte": bits / num_bytes, "num_bytes": num_bytes}


def read_texts(path: Path, text_column: str | None) -> Iterator[str]:
    """Yield the documents of a file, a folder or a glob, a bounded part at a time.

    Raises:
        DataError: a file cannot be read.
    """
    reader = Reader(text_column)
    for piece in cut_files(find_files([path])):
        for part in piece:
            yield from reader.documents(part)


def open_tokens(folder: Path, tokenizer: Tokenizer) -> tuple[list[TokenFile], int]:
    """Memory-map prepared token shards, the held-out ones if there are two sides, and return the bytes of their text.

    Raises:
        DataError: they are not whole, or were written with another tokenizer.
    """
    if (folder / VALID / MANIFEST).exists():
        folder = folder / VALID
    if not (folder / MANIFEST).exists():
        files = open_datatrove(folder, tokenizer.vocab_size)
        return files, sum(text_bytes(tokens.ids, tokenizer) for tokens in files)
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != fingerprint(tokenizer):
        raise DataError(f"--data: {folder}: the token shards were not written with the checkpoint's tokenizer")
    return open_shards(folder), manifest.num_bytes


@torch.inference_mode()
def predict(model: GPTClassifier, batches: Sequence[Batch]) -> list[int]:
    """Return the most likely label of each text, by index."""
    model.eval()
    device = model.score.weight.device
    found: list[int] = []
    for batch in batches:
        logits = model(batch["idx"].to(device), batch["lengths"].to(device))
        found += logits.argmax(-1).tolist()
    return found


def label_metrics(predicted: Sequence[int], actual: Sequence[int], num_labels: int) -> Metrics:
    """Return accuracy and macro F1 (the mean of the classes' F1; a class nobody named counts 0)."""
    pairs = list(zip(predicted, actual, strict=True))
    scores = []
    for label in range(num_labels):
        hits = sum(p == a == label for p, a in pairs)
        mentions = sum(p == label for p, _ in pairs) + sum(a == label for _, a in pairs)
        scores.append(2 * hits / mentions if mentions else 0.0)
    accuracy = sum(p == a for p, a in pairs) / len(pairs)
    return {"accuracy": accuracy, "macro_f1": sum(scores) / num_labels, "num_texts": len(pairs)}


def answer(
    model: GPT,
    conversations: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    end_ids: Collection[int],
    max_tokens: int = 64,
) -> list[str]:
    """Answer each conversation's last question greedily; the answer it ends with is not shown to the model.

    An answer that does not come to its end is marked with a trailing U+2026, so that it matches nothing by chance.
    """
    prompts = [template.encode(messages[:-1]) for messages in conversations]
    found = greedy_answers(model, prompts, end_ids=end_ids, max_tokens=max_tokens)
    texts = []
    for ids in found:
        has_ended = bool(ids) and ids[-1] in end_ids
        texts.append(tokenizer.decode(ids, skip_special=True) + ("" if has_ended else "\u2026"))
    return texts


def exact_match(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of answers that equal the wanted text, white space at the ends aside."""
    return sum(a.strip() == w.strip() for a, w in zip(answers, wanted, strict=True)) / len(answers)
