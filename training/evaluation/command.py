"""`groundup evaluate`: measure a checkpoint on a file, by what the checkpoint is for."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from model.chat import ChatTemplate
from model.checkpoint import load_classifier, load_gpt
from model.directory import Checkpoint, read_checkpoint
from model.tokenizer import Tokenizer
from training.config.evaluate import EvaluateConfig
from training.data.classification import TextBatches
from training.data.corpus import is_prepared
from training.data.encoding import fingerprint, text_bytes
from training.data.errors import DataError
from training.data.holdout import VALID
from training.data.instruction import ConversationBatches, read_conversations
from training.data.labelled import Columns, read_examples
from training.data.shards import MANIFEST, TokenFile, open_datatrove, open_shards, read_manifest
from training.data.slices import cut_files, find_files
from training.data.sources import Reader
from training.device import pick_device
from training.evaluation.answers import answer, exact_match
from training.evaluation.labels import measure
from training.evaluation.text import Metrics, loss_metrics, text_metrics, token_metrics


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
    columns = Columns(config.text_column, config.label_column, "," if checkpoint.is_multi_label else None)
    examples = read_examples(config.data, columns)[: config.limit]
    texts = TextBatches(examples, checkpoint.labels, tokenizer, max_length=checkpoint.config.block_size)
    model = load_classifier(checkpoint.path, device=pick_device(config.device))
    is_multi_label, batch_size = checkpoint.is_multi_label, config.batch_size
    return measure(model, texts, checkpoint.labels, is_multi_label=is_multi_label, batch_size=batch_size).metrics()


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
