"""Which base an adapter belongs to, found without loading a weight."""

import json
import re
from pathlib import Path

import pytest
import torch

from model.adapter import digest_of as digest_of_torch
from model.adapter_base import digest_of, find_base
from model.adapter_config import AdapterConfig
from model.adapter_directory import describe_adapted, misfit, read_adapter
from model.checkpoint import save_checkpoint
from model.classifier import GPTClassifier
from model.directory import Checkpoint, CheckpointError
from model.gpt import GPT
from model.tokenizer import Tokenizer
from tests.model.test_adapter_rows import make_adapter
from tests.tiny import make_config, make_gpt

CONFIG = AdapterConfig(rank=2, alpha=4, base="elsewhere/origin")


def save(path: Path, model: GPT, tokenizer: Tokenizer) -> Checkpoint:
    return save_checkpoint(path, model, tokenizer, model_card="")


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Tokenizer) -> Checkpoint:
    return save(tmp_path / "base", make_gpt(make_config(request.param)), tokenizer)


@pytest.fixture
def adapter(base: Checkpoint, tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", make_gpt(make_config(base.config.family)), CONFIG)


def other(base: Checkpoint, path: Path, tokenizer: Tokenizer, **changes: object) -> Checkpoint:
    return save(path, make_gpt(make_config(base.config.family, **changes), seed=5), tokenizer)


def forget_digests(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file), file)


def rename_base(adapter: Path, name: str) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": name}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_digests_are_those_that_training_writes(dtype: torch.dtype) -> None:
    tensor = torch.randn(37, 11).to(dtype)
    stored = tensor.view(torch.uint16) if dtype == torch.bfloat16 else tensor
    assert digest_of(stored.numpy()) == digest_of_torch(tensor)


def test_the_base_is_known_by_its_weights(
    base: Checkpoint, adapter: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    impostor = other(base, tmp_path / "impostor", tokenizer)
    assert find_base(read_adapter(adapter), [impostor, base]) == base
    with pytest.raises(CheckpointError, match=re.escape("its base is not served (elsewhere/origin); serve that")):
        find_base(read_adapter(adapter), [impostor])


def test_the_base_is_known_by_its_name(base: Checkpoint, adapter: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    forget_digests(adapter)
    impostor = other(base, tmp_path / "origin", tokenizer)
    assert find_base(read_adapter(adapter), [base, impostor]) == impostor


def test_a_namesake_with_other_weights_is_refused(
    base: Checkpoint, adapter: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    impostor = other(base, tmp_path / "origin", tokenizer)
    with pytest.raises(CheckpointError, match=r"made for another base than origin: tensor .* has other values there"):
        find_base(read_adapter(adapter), [base, impostor])


def test_without_name_and_digests_only_one_may_fit(
    base: Checkpoint, adapter: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    forget_digests(adapter)
    wider = other(base, tmp_path / "wider", tokenizer, n_embd=64)
    assert find_base(read_adapter(adapter), [wider, base]) == base
    twin = other(base, tmp_path / "twin", tokenizer)
    with pytest.raises(CheckpointError, match="fits base, twin; name the one it was made for"):
        find_base(read_adapter(adapter), [wider, base, twin])


def test_a_misfit_names_the_tensor(base: Checkpoint, adapter: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    stored = read_adapter(adapter)
    assert misfit(stored, base) is None
    assert "has shape" in (misfit(stored, other(base, tmp_path / "wider", tokenizer, n_embd=64)) or "")
    assert "no place in this base" in (misfit(stored, other(base, tmp_path / "low", tokenizer, n_layer=1)) or "")
    assert "is missing" in (misfit(stored, other(base, tmp_path / "high", tokenizer, n_layer=3)) or "")


def test_a_bare_adapter_is_described_by_its_base(base: Checkpoint, adapter: Path, tmp_path: Path) -> None:
    described = describe_adapted(read_adapter(adapter), base)
    assert (described.name, described.kind, described.eos_token_ids) == ("adapter", "base", base.eos_token_ids)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert describe_adapted(read_adapter(adapter), base).kind == "chat"
    labels = make_adapter(tmp_path / "labels", GPTClassifier(base.config, 3), CONFIG)
    described = describe_adapted(read_adapter(labels), base)
    assert (described.kind, described.labels) == ("classifier", ("LABEL_0", "LABEL_1", "LABEL_2"))
