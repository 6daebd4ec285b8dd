"""What every test may ask for: a small real tokenizer, three tiny checkpoints, the real data sets."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from model.chat import DEFAULT_TEMPLATE
from model.checkpoint import save_checkpoint
from model.classifier import GPTClassifier
from model.tokenizer import Tokenizer
from service import metrics as metrics  # before anything imports prometheus_client, which else counts in memory alone
from tests.tiny import make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, LLAMA2_TEMPLATE, llama2
from training.vocabulary import train_bpe

settings.register_profile("shared machine", deadline=None)  # a slow example is not a wrong one
settings.load_profile("shared machine")

TEXT = (
    "The quick brown fox jumps over the lazy dog, twice. "
    "A small boat crossed the wide river in 1869; nobody saw it land. "
    "Whenever thunder rolled above those empty hills, seven children counted slowly until silence came back. "
    "Naive cafe owners said: \u201cd\u00e9j\u00e0 vu costs \u20ac5!\u201d \u65e5\u672c\u8a9e \U0001f642\n"
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level BPE of 384 tokens with our special tokens, trained on a few sentences."""
    return train_bpe([TEXT] * 4, 384)


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A directory with random checkpoints `tiny-base` (gpt2), `tiny-chat` (llama) and `tiny-spam` (llama)."""
    folder = tmp_path_factory.mktemp("checkpoints")
    card = "# A random model for tests\n"
    save_checkpoint(folder / "tiny-base", make_gpt(make_config("gpt2")), tokenizer, model_card=card)
    save_checkpoint(
        folder / "tiny-chat",
        make_gpt(make_config("llama"), seed=1),
        tokenizer,
        model_card=card,
        chat_template=DEFAULT_TEMPLATE,
        eos_token_ids=[tokenizer.special_tokens["<|end|>"], tokenizer.eos_id],
    )
    torch.manual_seed(2)
    classifier = GPTClassifier(make_config("llama"), num_labels=2)
    save_checkpoint(folder / "tiny-spam", classifier, tokenizer, model_card=card, labels=["ham", "spam"])
    return folder


@pytest.fixture(scope="session")
def llama2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model whose vocabulary is of SentencePiece's kind, as Llama 2 has it."""
    path = tmp_path_factory.mktemp("llama2") / "tiny-llama2"
    tokenizer = Tokenizer(llama2(), LLAMA2_CONFIG)
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size))
    save_checkpoint(path, model, tokenizer, model_card="# Random\n", chat_template=LLAMA2_TEMPLATE)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets; a test that needs one skips where they are absent."""
    folder = Path(os.environ.get("GROUNDUP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; set GROUNDUP_DATA to their folder")
    return folder
