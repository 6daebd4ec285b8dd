"""`groundup merge`: a base and an adapter become a checkpoint, whoever wrote the adapter."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import groundup
from model.adapter_config import AdapterConfig
from model.chat import DEFAULT_TEMPLATE
from model.checkpoint import load_classifier, load_gpt, save_checkpoint
from model.classifier import GPTClassifier
from model.directory import read_checkpoint
from model.lora import add_lora
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from tests.twins import twin

CARD = "# Made for a test\n"


@pytest.fixture
def base(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_checkpoint(tmp_path / "base", make_gpt(make_config("llama")), tokenizer, model_card=CARD)
    return tmp_path / "base"


@pytest.fixture
def out(tmp_path: Path, base: Path, tokenizer: Tokenizer) -> Path:
    """A checkpoint of an adapted assistant, which holds the adapter."""
    model = load_gpt(base)
    config = AdapterConfig(rank=2, alpha=4, base=str(base))
    add_lora(model, config)
    torch.nn.init.normal_(model.get_parameter("h.0.attn.qkv.lora_B.q_proj"))
    chat = tokenizer.with_eos("<|end|>")
    place = tmp_path / "out"
    save_checkpoint(place, model, chat, adapter=config, chat_template=DEFAULT_TEMPLATE, model_card=CARD)
    return place


def merge(*arguments: object) -> int:
    return groundup.main(["merge", *map(str, arguments)])


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_gpt(path).named_parameters())


@pytest.mark.parametrize("names_base", [True, False])
def test_an_adapter_and_its_base_make_the_checkpoint_it_came_from(
    names_base: bool, base: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged"
    assert merge(out / "adapter", *(["--base", base] if names_base else []), "--out", merged) == 0
    assert "chat model" in capsys.readouterr().out
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in weights(merged).items())
    for file in ("config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (merged / file).read_bytes() == (out / file).read_bytes()
    assert not (merged / "adapter").exists()
    assert merge(out / "adapter", "--out", tmp_path / "half", "--dtype", "bfloat16") == 0
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_with_its_base_beside_it_is_a_checkpoint(out: Path) -> None:
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in weights(out / "adapter").items())
    assert load_gpt(out / "adapter", dtype=torch.bfloat16).wte.weight.dtype == torch.bfloat16
    described, whole = read_checkpoint(out / "adapter"), read_checkpoint(out)
    assert (described.kind, described.config, described.eos_token_ids) == ("chat", whole.config, whole.eos_token_ids)
    assert described.name == "out-adapter"  # several can be served side by side


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_of_peft_is_merged_with_a_head_for_its_labels(base: Path, tmp_path: Path) -> None:
    body = GPTClassifier(make_config("llama"), 3)
    body.gpt.load_state_dict(load_gpt(base).state_dict(), strict=False)
    theirs = get_peft_model(twin(body).float(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["v_proj"]))
    for parameter in (p for p in theirs.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter)
    theirs.eval().save_pretrained(tmp_path / "adapter")
    assert merge(tmp_path / "adapter", "--base", base, "--out", tmp_path / "merged") == 0
    assert read_checkpoint(tmp_path / "merged").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    idx = torch.randint(1, 384, (2, 20))
    with torch.no_grad():
        logits = load_classifier(tmp_path / "merged")(idx, torch.tensor([20, 20]))
        torch.testing.assert_close(logits, theirs(idx).logits, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_merged_is_refused(
    base: Path, out: Path, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert merge(*arguments) == 2
        return capsys.readouterr().err

    adapter, new = out / "adapter", tmp_path / "new"
    assert f"error: --out: {base} exists" in refused(adapter, "--out", base)
    assert "holds no adapter_config.json" in refused(base, "--out", new)
    assert "no such directory" in refused(adapter, "--base", tmp_path / "nowhere", "--out", new)
    labels = ["ham", "spam"]
    classifier = GPTClassifier(make_config("llama"), 2)
    save_checkpoint(tmp_path / "spam", classifier, tokenizer, labels=labels, model_card=CARD)
    assert "holds a classifier" in refused(adapter, "--base", tmp_path / "spam", "--out", new)
    base.rename(tmp_path / "moved")
    assert f"error: --base: required: {adapter} was made for {base}" in refused(adapter, "--out", new)
    with pytest.raises(ValueError, match="is no directory here; name it: groundup merge"):
        load_gpt(adapter)
    (adapter / "config.json").unlink()
    with pytest.raises(ValueError, match="holds an adapter, not a whole model; make one: groundup merge"):
        load_gpt(adapter)
    assert not new.exists()


def test_an_adapter_of_a_classifier_may_lie_on_another_adapter(out: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = GPTClassifier(make_config("llama"), 2)
    model.gpt.load_state_dict(load_gpt(out).state_dict(), strict=False)
    config = AdapterConfig(rank=2, alpha=4, base=str(out / "adapter"))
    add_lora(model, config)
    torch.nn.init.normal_(model.get_parameter("gpt.h.0.attn.qkv.lora_B.v_proj"))
    place = tmp_path / "spam"
    save_checkpoint(place, model, tokenizer, adapter=config, labels=["ham", "spam"], model_card=CARD)
    whole, found = (dict(load_classifier(path).named_parameters()) for path in (place, place / "adapter"))
    assert whole.keys() == found.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in found.items())


def test_the_chat_template_that_lies_beside_an_adapter_of_peft_comes_along(
    base: Path, out: Path, tmp_path: Path
) -> None:
    for file in ("config.json", "generation_config.json"):  # which PEFT does not write
        (out / "adapter" / file).unlink()
    assert merge(out / "adapter", "--base", base, "--out", tmp_path / "merged") == 0
    merged, whole = read_checkpoint(tmp_path / "merged"), read_checkpoint(out)
    assert merged.kind == "chat"
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == DEFAULT_TEMPLATE
    assert merged.eos_token_ids[0] == whole.eos_token_ids[0]
