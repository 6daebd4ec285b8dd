"""Adapters, heads and pooling in one engine: as each would be alone, and as transformers has it."""

import copy
from pathlib import Path

import pytest
import torch

from model.adapter import load_adapter
from model.adapter_config import AdapterConfig
from model.adapter_directory import read_adapter
from model.adapter_rows import read_updates
from model.checkpoint import save_checkpoint
from model.classifier import GPTClassifier
from model.generate import generate
from model.gpt import GPT
from model.lora import merge_lora
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from service.engine.engine import Engine
from service.engine.pages import PagePool
from service.engine.request import Admission, Pooled, Request
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler
from tests.model.test_adapter_rows import make_adapter, merged
from tests.service.engine.scripted import run_to_end, tokens_of
from tests.tiny import make_config, make_gpt

ADAPTERS = {
    "wide": AdapterConfig(rank=8, alpha=16),
    "narrow": AdapterConfig(rank=1, alpha=2, targets=("q_proj", "v_proj", "down_proj")),
    "gpt2-wide": AdapterConfig(rank=8, alpha=16),
    "gpt2-narrow": AdapterConfig(rank=1, alpha=2, targets=("c_attn",), layers=(0,)),
}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest) -> GPT:
    return make_gpt(make_config(request.param))


@pytest.fixture(scope="module")
def folders(base: GPT, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that generate and one that classifies."""
    root = tmp_path_factory.mktemp("adapters")
    chosen = ["gpt2-wide", "gpt2-narrow"] if base.config.family == "gpt2" else ["wide", "narrow"]
    folders = {name: make_adapter(root / name, base, ADAPTERS[name]) for name in chosen}
    return folders | {"labels": make_adapter(root / "labels", classifier_on(base), AdapterConfig(rank=2, alpha=4))}


def classifier_on(base: GPT) -> GPTClassifier:
    torch.manual_seed(3)
    classifier = GPTClassifier(base.config, 3)
    classifier.gpt.load_state_dict(base.state_dict(), strict=False)
    return classifier.eval()


def make_engine(base: GPT, folders: dict[str, Path], budget: int = 17, num_pages: int = 60) -> Engine:
    """Pages and budget are small, so that prompts come in chunks and sequences are preempted."""
    pool = PagePool(num_pages, 4)
    scheduler = Scheduler(pool, block_size=base.config.block_size, max_num_seqs=8, max_num_batched_tokens=budget)
    runner = GPTRunner(copy.deepcopy(base), num_pages=pool.num_pages, page_size=pool.page_size)
    for name, folder in folders.items():
        loaded = read_updates(read_adapter(folder), base.config, "cpu")
        runner.adapters.add(name, loaded)
        if loaded.head is not None:
            runner.heads[name] = loaded.head
    return Engine(scheduler, runner)


def prompt(seed: int, length: int = 21) -> list[int]:
    return torch.randint(384, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_a_mixed_batch_says_what_each_merged_model_says_alone(base: GPT, folders: dict[str, Path]) -> None:
    names = [None, *(name for name in folders if name != "labels")]
    params = SamplingParams(max_tokens=16, temperature=0.0)
    models = {name: base if name is None else merged(base, folders[name]) for name in names}
    expected = {
        f"{name}-{seed}": generate(model, prompt(seed), params).output_ids
        for name, model in models.items()
        for seed in (1, 2)
    }
    engine = make_engine(base, folders)
    for seed in (1, 2):
        for name in names:
            engine.add(Request(f"{name}-{seed}", prompt(seed), params, adapter=name))
    outputs = run_to_end(engine)
    assert {uid: tokens_of(outputs, uid) for uid in expected} == expected
    assert len({tuple(tokens) for tokens in expected.values()}) > 3, "the adapters change nothing"


def test_a_seeded_sample_does_not_depend_on_the_adapters_beside_it(base: GPT, folders: dict[str, Path]) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.0, seed=7)
    names = [None, *(name for name in folders if name != "labels")]

    def ask(name: str | None) -> Request:
        return Request(f"{name}", prompt(4), params, adapter=name)

    together = make_engine(base, folders)
    for name in names:
        together.add(ask(name))
    outputs = run_to_end(together)
    for name in names:
        alone = make_engine(base, folders)
        alone.add(ask(name))
        assert tokens_of(run_to_end(alone), f"{name}") == tokens_of(outputs, f"{name}")


def test_adapters_in_chunks_with_common_beginnings_say_what_each_says_alone(
    base: GPT, folders: dict[str, Path]
) -> None:
    names = [None, *(name for name in folders if name != "labels")]

    def ask(uid: str, name: str | None, salt: int) -> Request:
        params = SamplingParams(max_tokens=10, temperature=float(salt % 2), seed=salt)
        return Request(uid, [*prompt(9, 33), *prompt(salt, 5)], params, adapter=name)

    together = make_engine(base, folders, num_pages=34)
    asked = {f"{name}-{salt}": (name, salt) for salt in range(4) for name in names}
    for uid, (name, salt) in asked.items():
        together.add(ask(uid, name, salt))
    outputs = run_to_end(together)
    assert together.num_preemptions
    cached = {output.uid: output.cached_tokens for output in outputs if isinstance(output, Admission)}
    assert [cached[f"{name}-0"] for name in names] == [0] * len(names), "a page was shared between adapters"
    assert any(cached.values())
    for uid, (name, salt) in asked.items():
        alone = make_engine(base, folders)
        alone.add(ask(uid, name, salt))
        assert tokens_of(run_to_end(alone), uid) == tokens_of(outputs, uid)


def test_a_head_on_the_backbone_gives_the_logits_of_its_merged_classifier(base: GPT, folders: dict[str, Path]) -> None:
    whole = classifier_on(base)
    load_adapter(whole, read_adapter(folders["labels"]))
    merge_lora(whole)
    engine = make_engine(base, folders)
    prompts = [prompt(seed, length) for seed, length in ((1, 1), (2, 9), (3, 40))]
    for number, ids in enumerate(prompts):
        engine.add(Request(f"text-{number}", ids, adapter="labels", pooling="last", head="labels"))
    engine.add(Request("story", prompt(5), SamplingParams(max_tokens=8)))
    found = {output.uid: output.values for output in run_to_end(engine) if isinstance(output, Pooled)}
    for number, ids in enumerate(prompts):
        expected = whole(torch.tensor([ids]), torch.tensor([len(ids)]))[0].tolist()
        assert found[f"text-{number}"] == pytest.approx(expected, abs=1e-4)


def test_embeddings_are_what_transformers_hidden_states_give(base: GPT, tmp_path: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoModel

    save_checkpoint(tmp_path / "base", base, tokenizer, model_card="")
    theirs = AutoModel.from_pretrained(tmp_path / "base").eval()
    engine = make_engine(base, {}, budget=8)
    for length in (1, 7, 50):
        for pooling in ("mean", "last"):
            engine.add(Request(f"{pooling}-{length}", prompt(6, length), pooling=pooling))
    found = {output.uid: output.values for output in run_to_end(engine) if isinstance(output, Pooled)}
    for length in (1, 7, 50):
        with torch.no_grad():
            hidden = theirs(torch.tensor([prompt(6, length)])).last_hidden_state[0]
        torch.testing.assert_close(torch.tensor(found[f"mean-{length}"]), hidden.mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.tensor(found[f"last-{length}"]), hidden[-1], rtol=1e-4, atol=1e-4)
