"""What directories become: fingerprints that change when answers may, and adapters beside their bases."""

import shutil
from pathlib import Path

import pytest

from model.adapter_config import AdapterConfig
from model.classifier import GPTClassifier
from model.directory import CheckpointError
from service.settings import ServiceSettings
from service.web.catalog import has_changed, load_models
from service.web.loads import initial_loads
from tests.model.test_adapter_rows import make_adapter
from tests.tiny import make_config, make_gpt


@pytest.fixture
def adapter(tmp_path: Path, tiny_checkpoints: Path) -> Path:
    """An adapter of tiny-base, without a description of its own."""
    base = str(tiny_checkpoints / "tiny-base")
    return make_adapter(tmp_path / "adapter", make_gpt(make_config("gpt2")), AdapterConfig(rank=2, alpha=4, base=base))


def settings_of(*paths: Path, **changes: object) -> ServiceSettings:
    return ServiceSettings.model_validate({"checkpoints": paths, **changes})


def fingerprint(path: Path, **changes: object) -> str:
    return next(iter(load_models(settings_of(path, **changes)))).fingerprint


def test_fingerprint_is_stable_and_changes_with_what_shapes_an_answer(tiny_checkpoints: Path, tmp_path: Path) -> None:
    original = tiny_checkpoints / "tiny-base"
    copy = shutil.copytree(original, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(original)
    assert fingerprint(original, dtype="bfloat16") != fingerprint(original)
    settings = settings_of(copy)
    (model,) = load_models(settings)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(copy) != fingerprint(original)
    assert has_changed(model, settings)
    shutil.rmtree(copy)
    assert has_changed(model, settings)


def test_an_adapter_runs_on_its_base_wherever_it_stands_in_the_list(adapter: Path, tiny_checkpoints: Path) -> None:
    bases = [tiny_checkpoints / "tiny-chat", tiny_checkpoints / "tiny-base"]
    for paths in ([adapter, *bases], [*bases, adapter]):
        models = load_models(settings_of(*paths))
        assert [model.id for model in models] == [path.name for path in paths]
        found = models.get("adapter")
        assert found.base is models.get("tiny-base")
        assert (found.worker, found.capabilities) == ("generate", models.get("tiny-base").capabilities)
        assert found.card()["parent"] == "tiny-base"
        loads = initial_loads(models)["generate"]
        assert [load.model for load in loads][-1] == "adapter"
        assert loads[-1].base == "tiny-base"


def test_an_adapters_fingerprint_follows_its_base(adapter: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    first = load_models(settings_of(base, adapter))
    second = load_models(settings_of(base, adapter, dtype="bfloat16"))
    prints = {model.fingerprint for models in (first, second) for model in models}
    assert len(prints) == 4


def test_an_adapters_head_is_served_from_its_bases_worker(tmp_path: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-base"
    config = AdapterConfig(rank=2, alpha=4, base=str(base))
    labels = make_adapter(tmp_path / "labels", GPTClassifier(make_config("gpt2"), 3), config)
    weights = labels / "adapter_model.safetensors"
    forget_digests(weights)  # the classifier was made with a body of its own
    found = load_models(settings_of(base, labels, tiny_checkpoints / "tiny-spam"))
    assert {model.id: model.worker for model in found if model.checkpoint.kind == "classifier"} == {
        "labels": "generate",
        "tiny-spam": "classify",
    }


def forget_digests(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(weights), weights)


def test_an_adapter_without_its_base_is_refused_before_anything_is_loaded(
    adapter: Path, tiny_checkpoints: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"adapter: its base is not served \(.*tiny-base\); serve"):
        load_models(settings_of(tiny_checkpoints / "tiny-chat", adapter))


def test_an_adapter_that_tells_all_is_served_merged_where_its_base_lies(adapter: Path, tiny_checkpoints: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoints / "tiny-base" / name, adapter)
    (model,) = load_models(settings_of(adapter))
    assert (model.base, model.worker) == (None, "generate")
