"""`groundup train-demo`: make a base model, an assistant and a spam classifier from nothing but generated data.

It chooses sizes and data and calls the same recipes as any other run; what the results are compared with stands in
`demo_results`. One seed fixes everything.
"""

import copy
import itertools
import logging
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.classifier import GPTClassifier
from model.gpt import GPT
from model.lora import has_lora, merge_lora
from training.chat_tools import chat_tools
from training.classify import build_classifier, choose_tokenizer, classify
from training.config.classify import ClassifyConfig
from training.config.demo import DemoConfig
from training.config.finetune import LoRASettings
from training.config.instruct import InstructConfig
from training.config.pretrain import PretrainConfig
from training.config.run import RunConfig
from training.config.shape import ModelShape
from training.data.encoding import encode_documents
from training.data.ids import Ids
from training.data.instruction import ConversationBatches, to_rows
from training.data.label_split import Split
from training.data.labelled import Example
from training.data.tokens import TokenWindows, covering_batches
from training.demo import spam, stories, tasks, words
from training.demo.base_texts import USAGE_SHARE, base_documents
from training.demo.conversations import conversations
from training.demo.results import Results, measure_answers, measure_labels, measure_text, sample_answers
from training.finetune import load_base, prepare
from training.instruct import instruct
from training.machine.device import set_up_torch
from training.pretrain import build_model, pretrain
from training.run.card import Card, save_run
from training.run.folder import RunFolder, run_folder
from training.run.progress import show_messages
from training.run.state import TrainerState
from training.run.tracking import MetricsLog
from training.spelled_vocabulary import train_spelled_bpe

logger = logging.getLogger(__name__)

BASE, CHAT, SPAM = "groundup-base", "groundup-chat", "groundup-spam"
"""Directory names, and so the ids the models are served under."""

TEST_SEED = 1
"""Fixes the test sets, whatever the seed of a run."""

M = TypeVar("M", GPT, GPTClassifier)


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much of everything."""

    model: ModelShape
    base_documents: int
    base_steps: int
    chat_conversations: int
    chat_steps: int
    spam_messages: int
    spam_reading_steps: int
    """Steps of next-token training on the messages before their labels are learned."""
    spam_steps: int
    test_items: int
    """Held-out items of each kind of task in each split."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    base_batch_size: int = 8
    base_conversations: int = 0
    """Conversations that the base model reads, as text among the others."""
    vocab_size: int = 1024


QUICK = DemoSize(
    model=ModelShape(family="llama", block_size=256, n_layer=4, n_head=4, n_embd=128),
    base_documents=2500,
    base_steps=420,
    chat_conversations=20_000,
    chat_steps=600,
    spam_messages=3000,
    spam_reading_steps=300,
    spam_steps=100,
    test_items=50,
    task_weights=dict.fromkeys(tasks.EASY_KINDS, 3.0),
)
"""Minutes on two cores."""

FULL = DemoSize(
    model=ModelShape(family="llama", block_size=384, n_layer=4, n_head=4, n_embd=128),
    base_documents=30_000,
    base_conversations=70_000,
    base_steps=1700,
    base_batch_size=12,
    chat_conversations=165_000,
    chat_steps=3400,
    spam_messages=5000,
    spam_reading_steps=400,
    spam_steps=100,
    test_items=100,
    task_weights=tasks.HARD_KINDS,
    vocab_size=896,
)
"""Under an hour on one core."""


def run(config: DemoConfig) -> None:
    """Train the three models, save them, and print what they reach on held-out data.

    Raises:
        OutputError: a checkpoint cannot be put where it should go.
        NonFiniteError: training diverged.
    """
    show_messages()
    started = time.perf_counter()
    results = make(config, FULL if config.full else QUICK)
    sys.stdout.write("\n\n".join(["Held-out results", *(result.table() for result in results)]) + "\n")
    logger.info("%d s in all; serve them with: groundup serve %s/*", time.perf_counter() - started, config.out)


def make(config: DemoConfig, size: DemoSize) -> list[Results]:
    """Make the three checkpoints, one after another, and return what each of them reaches."""
    with ExitStack() as stack:
        folders = [
            stack.enter_context(run_folder(RunConfig(out=config.out / name, overwrite=config.overwrite)))
            for name in (BASE, CHAT, SPAM)
        ]
        demo = Demo(config, size)
        results = []
        for step, folder in zip((demo.make_base, demo.make_chat, demo.make_spam), folders, strict=True):
            results.append(step(folder))
            logger.info("%s", results[-1].table())
        return results


class Demo:
    """The data of one run and the three recipes on it; the assistant starts from the base model, the classifier from
    nothing."""

    def __init__(self, config: DemoConfig, size: DemoSize) -> None:
        self.config = config
        self.size = size
        self.documents = list(itertools.islice(self._base_documents(), size.base_documents))
        self.conversations = list(
            itertools.islice(conversations(config.seed, size.task_weights), size.chat_conversations)
        )
        self.read = list(itertools.islice(conversations(config.seed + 1, size.task_weights), size.base_conversations))
        self.messages = spam.messages(config.seed, size.spam_messages, held_out=False)
        self.tokenizer = train_spelled_bpe(
            self._vocabulary_texts(), size.vocab_size, spelled=words.LISTED - tasks.instruction_words()
        )

    def make_base(self, folder: RunFolder) -> Results:
        """Pretrain on stories, and compare with a word 5-gram."""
        size = self.size
        settings = PretrainConfig(
            **self._common(BASE, size.base_steps, lr=5e-3),
            data=Path("training/demo/base_texts.py"),
            batch_size=size.base_batch_size,
            model=size.model,
            vocab_size=size.vocab_size,
        )
        set_up_torch(settings)
        train, valid = self.documents[: -len(self.documents) // 20], self.documents[-len(self.documents) // 20 :]
        model = build_model(settings, self.tokenizer)
        ids = [self._base_ids(train), encode_documents(valid, self.tokenizer)]
        block_size = size.model.block_size
        windows = TokenWindows(
            ids[:1],
            block_size=block_size,
            stride=block_size // 8,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        held_out = covering_batches(ids[1], block_size=block_size, batch_size=settings.batch_size, stride=block_size)
        with MetricsLog(folder.metrics) as log:
            state = whole(pretrain(model, windows, held_out, self.tokenizer, settings, log=log))
        results = measure_text(as_saved(model), self.tokenizer, self.documents, held_out_stories(self.documents))
        card = Card(
            summary="A small language model that tells short stories.",
            data=f"{len(train):,} generated texts (`training/demo/base_texts.py`): stories, drills, nouns in use; and "
            f"{len(self.read):,} conversations as the assistant has them.",
            metrics=results.summary,
            reproduce=self._command(),
        )
        save_run(settings, model, self.tokenizer, card, log, state, dtype=torch.bfloat16)
        return results

    def make_chat(self, folder: RunFolder) -> Results:
        """Finetune the base model on conversations, and count exact answers on what was held out."""
        settings = InstructConfig(
            **self._common(CHAT, self.size.chat_steps, lr=4e-3 if self.config.lora_rank is None else 1.5e-3),
            lora=LoRASettings(rank=self.config.lora_rank),
            data=Path("training/demo/conversations.py"),
            base=self.config.out / BASE,
            batch_size=48,
        )
        set_up_torch(settings)
        tokenizer, template, _ = chat_tools(settings)
        model = load_base(settings.base, settings)
        adapter = prepare(model, settings)
        train, valid = (
            ConversationBatches(part, template, tokenizer, block_size=model.config.block_size)
            for part in (self.conversations[500:], self.conversations[:500])
        )
        with MetricsLog(folder.metrics) as log:
            state = whole(instruct(model, train, valid, settings, log=log))
        results = measure_answers(as_saved(model), template, tokenizer, self.size.test_items, TEST_SEED)
        card = Card(
            summary="A small assistant: it changes, spells and compares words and numbers, and tells short stories.",
            data=f"{len(train.kept):,} generated conversations (`training/demo/conversations.py`). One word in four "
            "and two phrasings of each kind of task were held out by a rule fixed before training.",
            metrics=results.summary,
            reproduce=self._command(),
            notes=f"## Held-out answers\n\n{results.markdown()}\n\n"
            f"## Samples\n\nGreedy, unselected:\n\n{sample_answers(as_saved(model), template, tokenizer)}",
        )
        saving: dict[str, Any] = {"chat_template": template.source, "dtype": torch.bfloat16}
        if adapter is not None:
            saving["adapter"] = adapter
        save_run(settings, model, tokenizer, card, log, state, **saving)
        return results

    def make_spam(self, folder: RunFolder) -> Results:
        """Train a model of its own to label messages, and compare with two baselines.

        Its vocabulary is that of the messages, whose words the base model would read letter by letter.
        """
        labels = ["ham", "spam"]
        settings = ClassifyConfig(
            **self._common(SPAM, self.size.spam_steps, lr=2e-3),
            data=Path("training/demo/spam.py"),
            batch_size=32,
            warmup_lm_steps=self.size.spam_reading_steps,
        )
        set_up_torch(settings)
        train = [Example(text, (label,)) for text, label in self.messages]
        test = [Example(text, (label,)) for text, label in spam.messages(TEST_SEED, 600, held_out=True)]
        split = Split(train[300:], train[:300], test)
        tokenizer = choose_tokenizer(settings, split.train)
        model = build_classifier(settings, tokenizer, split.train, num_labels=len(labels))
        with MetricsLog(folder.metrics) as log:
            state = whole(classify(model, split, labels, tokenizer, settings, log=log))
        results = measure_labels(as_saved(model), split, labels, tokenizer)
        card = Card(
            summary="Tells spam from ham.",
            data=f"{len(split.train):,} generated messages (`training/demo/spam.py`); tested on clauses and words "
            "that training never saw.",
            metrics=results.summary,
            reproduce=self._command(),
        )
        save_run(settings, model, tokenizer, card, log, state, labels=labels, dtype=torch.bfloat16)
        return results

    def _common(self, name: str, steps: int, lr: float) -> dict[str, Any]:
        """Return the settings that all three runs share."""
        return {
            "out": self.config.out / name,
            "overwrite": self.config.overwrite,
            "seed": self.config.seed,
            "num_threads": self.config.num_threads,
            "device": "cpu",
            "steps": steps,
            "eval_interval": max(1, steps // 10),
            "keep_best": False,
            "optim": {"lr": lr},
        }

    def _base_documents(self, usage_share: float = USAGE_SHARE) -> Iterator[str]:
        """Return texts for the base model, without end."""
        return base_documents(self.config.seed, usage_share=usage_share)

    def _base_ids(self, documents: Sequence[str]) -> Ids:
        """Return the ids of texts and of conversations, mixed."""
        template = ChatTemplate(DEFAULT_TEMPLATE, self.tokenizer)
        parts = [encode_documents([text], self.tokenizer) for text in documents]
        rows = [row for messages in self.read for row in to_rows(template, messages)]
        parts += [np.array([*row.ids, self.tokenizer.eos_id], parts[0].dtype) for row in rows]
        random.Random(self.config.seed).shuffle(parts)
        return np.concatenate(parts)

    def _vocabulary_texts(self) -> list[str]:
        """Return as much of each kind of text as the vocabulary should care about; held-out nouns are not in it."""
        said = [message["content"] for talk in self.conversations[:4000] for message in talk]
        documents = itertools.islice(self._base_documents(usage_share=0), 3000)
        return [*documents, *said]

    def _command(self) -> str:
        config = self.config
        full = " --full" if config.full else ""
        lora = f" --lora-rank {config.lora_rank}" if config.lora_rank else ""
        threads = (
            f" --num-threads {config.num_threads}" if config.num_threads else ""
        )  # sums depend on how they are cut
        return f"groundup train-demo{full}{lora} --seed {config.seed}{threads} --out {config.out} --overwrite"


def whole(state: TrainerState) -> TrainerState:
    """Pass on the state of a run that came to its end; one that was stopped stops the demo, half made.

    Raises:
        KeyboardInterrupt: somebody asked the run to stop.
    """
    if state.is_stopped:
        raise KeyboardInterrupt
    return state


def held_out_stories(training: list[str], count: int = 400) -> list[str]:
    """Tell stories that are not among the training texts."""
    rng = random.Random(f"test {TEST_SEED}")
    known = set(training)
    told = (stories.tell(rng).text for _ in itertools.count())
    return list(itertools.islice((story for story in told if story not in known), count))


@torch.no_grad()
def as_saved(model: M) -> M:
    """Return the model that the checkpoint will hold: adapters merged, weights rounded; so that this is measured."""
    model = copy.deepcopy(model)
    if has_lora(model):
        merge_lora(model)
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    return model
