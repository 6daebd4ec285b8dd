"""What trains: weights chosen by name or LoRA, and runs of it that stop and go on bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

import groundup
from model.adapter_config import AdapterConfig
from model.adapter_directory import read_adapter
from model.checkpoint import load_classifier, load_gpt, save_checkpoint
from model.classifier import GPTClassifier
from model.directory import read_checkpoint
from model.gpt import GPT
from model.lora import has_lora, merge_lora
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.classify import build_classifier
from training.config.classify import ClassifyConfig
from training.config.finetune import FinetuneConfig
from training.data.batches import share
from training.data.labelled import Example
from training.finetune import base_digest, choose, load_base, prepare
from training.loss import Batch, LossSums, label_loss, next_token_loss
from training.optim import Muon, build_optimizers
from training.run.best import OnDisk
from training.run.card import describe_weights
from training.run.folder import RunFolder
from training.run.snapshots import Snapshots
from training.run.state import seed_all
from training.trainer import Trainer


def batches(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    rng = torch.Generator().manual_seed(step)
    idx = torch.randint(384, (4, 17), generator=rng)
    return share({"idx": idx[:, :-1], "targets": idx[:, 1:]}, rank, world_size)


def labelled(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    batch = batches(step, rank, world_size)
    return {"idx": batch["idx"], "lengths": torch.full((4,), 16), "labels": batch["idx"][:, 0] % 2}


class Interruption(Exception):
    """Stands for whatever ends a process between two steps."""


Write = Callable[[Path, GPT | GPTClassifier, AdapterConfig | None], object]


class Run:
    """A run from a base, with averaged weights, the best ones on disk, and dropout; it may end at a step."""

    def __init__(
        self,
        folder: Path,
        base: Path,
        write: Write,
        *,
        ends_at: int | None = None,
        labels: bool = False,
        **changes: Any,
    ) -> None:
        settings = {"steps": 10, "batch_size": 4, "micro_batch_size": 2, "eval_interval": 2, "save_interval": 3}
        settings |= {"device": "cpu", "optim": {"lr": 3e-2}}
        self.config = FinetuneConfig.model_validate({"out": folder / "out", "base": base, **settings, **changes})
        seed_all(1)
        gpt = load_base(base, self.config)
        self.model: Any = gpt
        if labels:
            self.model = GPTClassifier(gpt.config, 2)
            weights = {name: tensor for name, tensor in gpt.state_dict().items() if name != "lm_head.weight"}
            self.model.gpt.load_state_dict(weights)
        self.adapter = prepare(self.model, self.config)
        self.ends_at = ends_at
        self.losses: dict[int, Tensor] = {}
        self.loss_of: Any = label_loss if labels else next_token_loss
        rows = labelled if labels else batches
        self.snapshots = Snapshots(folder / "snapshots", self.config.keep_last)
        self.trainer: Trainer[Any] = Trainer(
            self.model,
            self.loss,
            rows,
            self.config,
            valid=[rows(99)],
            snapshots=self.snapshots,
            best=OnDisk(folder, lambda place, model: write(place, model, self.adapter)),
        )

    def loss(self, model: Any, batch: Batch) -> LossSums:
        if model.training and self.trainer.state.step == self.ends_at:
            raise Interruption
        sums: LossSums = self.loss_of(model, batch)
        if model.training:
            self.losses[self.trainer.state.step] = sums.loss.detach()
        return sums

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}


@pytest.fixture
def write(tokenizer: Tokenizer) -> Write:
    def write(place: Path, model: GPT | GPTClassifier, adapter: AdapterConfig | None) -> None:
        labels = ["ham", "spam"] if isinstance(model, GPTClassifier) else None
        save_checkpoint(place, model, tokenizer, adapter=adapter, labels=labels, model_card="# Made for a test\n")

    return write


@pytest.fixture
def base(tmp_path: Path, write: Write) -> Path:
    write(tmp_path / "base", make_gpt(make_config("llama", dropout=0.2)), None)
    return tmp_path / "base"


LORA = {"rank": 4, "dropout": 0.3, "targets": ["q_proj", "v_proj", "down_proj"]}
RUNS: dict[str, dict[str, Any]] = {
    "lora-last": {"lora": LORA, "keep_best": False},
    "lora-best": {"lora": LORA, "ema": 0.8},
    "lora-classifier": {"lora": {"rank": 2}, "ema": 0.8, "labels": True},
    "lora-bfloat16": {"lora": {**LORA, "base_dtype": "bfloat16"}, "ema": 0.8},
    "lora-bfloat16-classifier": {"lora": {**LORA, "base_dtype": "bfloat16"}, "labels": True},
    "last-block": {"trainable": 1, "ema": 0.8, "labels": True},
    "head": {"trainable": "head", "labels": True},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_bit_for_bit_and_saves_no_weight_that_stays(
    name: str, tmp_path: Path, base: Path, write: Write
) -> None:
    whole = Run(tmp_path / "whole", base, write, **RUNS[name])
    before = whole.weights()
    whole.trainer.fit()
    with pytest.raises(Interruption):
        Run(tmp_path, base, write, ends_at=8, **RUNS[name]).trainer.fit()
    resumed = Run(tmp_path, base, write, **RUNS[name])
    resumed.trainer.fit()
    assert sorted(resumed.losses) == [6, 7, 8, 9]
    for step, loss in resumed.losses.items():
        assert torch.equal(loss, whole.losses[step]), step
    for key, tensor in resumed.weights().items():
        assert torch.equal(tensor, whole.weights()[key]), key

    trained = {key for key, p in whole.model.named_parameters() if p.requires_grad}
    after = whole.weights()
    assert {key for key in after if not torch.equal(after[key], before[key])} == trained
    last = resumed.snapshots.last()
    assert last is not None
    assert {key.removeprefix("model.") for key in last.tensors if key.startswith("model.")} == trained
    assert {key.removeprefix("average.") for key in last.tensors if key.startswith("average.")} <= trained


@pytest.mark.parametrize("name", ["lora-best", "lora-classifier", "lora-bfloat16", "lora-bfloat16-classifier"])
def test_a_checkpoint_of_an_adapted_model_is_merged_and_holds_the_adapter(
    name: str, tmp_path: Path, base: Path, write: Write
) -> None:
    run = Run(tmp_path, base, write, **RUNS[name])
    run.trainer.fit()
    out = tmp_path / "result"
    write(out, run.model, run.adapter)
    load: Any = load_classifier if RUNS[name].get("labels") else load_gpt
    merged, from_base = load(out), load(out / "adapter")
    assert not has_lora(merged)
    assert read_checkpoint(out / "adapter").labels == read_checkpoint(out).labels
    assert read_adapter(out / "adapter").config.base == str(base)
    for (key, tensor), again in zip(merged.named_parameters(), from_base.parameters(), strict=True):
        assert tensor.dtype == again.dtype == torch.float32
        if "bfloat16" in name and not tensor.equal(again):  # there the base is not rounded
            torch.testing.assert_close(tensor, again, atol=5e-3, rtol=0)
        else:
            assert torch.equal(tensor, again), key
    batch = labelled(5) if RUNS[name].get("labels") else batches(5)
    run.model.eval()
    with torch.no_grad():
        one, other = run.loss_of(run.model, batch).loss, run.loss_of(merged, batch).loss
    torch.testing.assert_close(one.float(), other, atol=0.05 if "bfloat16" in name else 1e-4, rtol=1e-2)


def test_the_same_run_writes_the_same_adapter(tmp_path: Path, base: Path, write: Write) -> None:
    files = []
    for name in ("one", "other"):
        run = Run(tmp_path / name, base, write, lora={"rank": 2}, steps=2)
        run.trainer.fit()
        write(tmp_path / name / "out", run.model, run.adapter)
        adapter = tmp_path / name / "out" / "adapter"
        files.append({file.name: file.read_bytes() for file in adapter.iterdir()})
    assert files[0] == files[1]
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "config.json"} <= files[0].keys()


def test_a_table_of_angles_is_not_rounded_with_the_weights(base: Path) -> None:
    config = FinetuneConfig.model_validate({"out": "o", "base": base, "lora": {"rank": 2, "base_dtype": "bfloat16"}})
    model = load_base(base, config)
    prepare(model, config)
    assert model.wte.weight.dtype == torch.bfloat16
    assert model.rotary_table.dtype == torch.float32
    merge_lora(model)
    assert torch.equal(model.rotary_table, load_gpt(base).rotary_table)


def test_muon_does_not_move_low_rank_updates() -> None:
    model = make_gpt(make_config("llama"))
    config = FinetuneConfig.model_validate({"out": "out", "base": "base", "lora": {"rank": 2}})
    prepare(model, config)
    assert not any(isinstance(each, Muon) for each in build_optimizers(model, config.optim))


def test_alpha_is_twice_the_rank_where_nothing_else_is_said() -> None:
    config = FinetuneConfig.model_validate({"out": "out", "base": "base", "lora": {"rank": 3}})
    adapter = prepare(make_gpt(make_config("llama")), config)
    assert adapter is not None
    assert (adapter.rank, adapter.alpha, adapter.base) == (3, 6, "base")


def trained(model: GPT | GPTClassifier) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_dropout_can_be_set_anew(base: Path) -> None:
    body = load_base(base, FinetuneConfig(out=Path("run"), base=base))
    model = GPTClassifier(body.config, num_labels=2)
    idx, lengths = torch.arange(12)[None], torch.tensor([12])
    before = model.eval()(idx, lengths)
    prepare(model, FinetuneConfig(out=Path("run"), base=base, dropout=0.5))
    assert model.config.dropout == model.gpt.config.dropout == 0.5
    assert torch.equal(model.eval()(idx, lengths), before)
    model.train()
    assert not torch.equal(model(idx, lengths), model(idx, lengths))


def test_what_trains_can_be_chosen() -> None:
    model = GPTClassifier(make_config("llama"), 2)
    everything = set(dict(model.named_parameters()))
    choose(model, "head")
    assert trained(model) == {"score.weight"}
    choose(model, 1)
    block = {name for name in everything if name.startswith("gpt.h.1.")}
    assert trained(model) == block | {"score.weight", "gpt.ln_f.weight"}
    choose(model, 2)
    assert trained(model) == everything - {"gpt.wte.weight"}
    choose(model, "all")
    assert trained(model) == everything
    with pytest.raises(ValueError, match="--trainable: 3 blocks, but the model has 2"):
        choose(model, 3)
    language = make_gpt(make_config("llama3"))
    choose(language, "head")
    assert trained(language) == {"lm_head.weight"}


def test_the_card_says_what_trained() -> None:
    model = GPTClassifier(make_config("llama"), 2)
    total = model.num_params()
    assert describe_weights(model) == {"Parameters": f"{total:,}"}
    choose(model, "head")
    assert describe_weights(model) == {"Parameters": f"{total:,}", "Trained": f"64 ({64 / total:.2%})"}
    prepare(
        model, FinetuneConfig.model_validate({"out": "out", "base": "b", "lora": {"rank": 1, "targets": ["v_proj"]}})
    )
    assert describe_weights(model) == {"Parameters": f"{total:,}", "Trained": f"160 ({160 / total:.2%})"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": {"alpha": 4}}, "--lora.rank: needed"),
        ({"lora": {"rank": 4}, "trainable": 2}, "--trainable and --lora.rank: adapters train instead"),
        ({"lora": {"rank": 4}, "base": None}, "--lora.rank: without --base, everything is new"),
        ({"trainable": "head", "base": None}, "--trainable: without --base"),
        ({"lora": {"rank": 0}}, "greater than 0"),
        ({"trainable": 0}, "0 is neither all nor head nor a number of blocks from 1 on"),
        ({"trainable": "tail"}, "tail is neither all nor head"),
        ({"lora": {"rank": 4, "alpha": 0}}, "greater than 0"),
        ({"lora": {"rank": 4, "targets": []}}, "at least 1 item"),
        ({"lora": {"rank": 4, "dropout": 1}}, "less than 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig.model_validate({"out": "out", "base": "base", **settings})


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("llama", "c_attn", "c_attn: no linear layer of this model is called so; there are: q_proj, k_proj, v_proj"),
        ("gpt2", "q_proj", "there are: c_attn, attn.c_proj, c_fc, mlp.c_proj"),
        ("llama", "wte", "wte: no linear layer"),
        ("llama", "lm_head", "lm_head: is one matrix with the embeddings"),
        ("llama3", "lm_head", "lm_head: cannot be adapted while training"),
    ],
)
def test_targets_that_are_no_linear_layers_are_refused_by_name(kind: str, target: str, message: str) -> None:
    config = FinetuneConfig.model_validate({"out": "o", "base": "b", "lora": {"rank": 2, "targets": [target]}})
    with pytest.raises(ValueError, match=f"--lora.targets: .*{message}|--lora.targets: {message}"):
        prepare(make_gpt(make_config(kind)), config)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_makes_of_base_and_adapter_what_a_run_wrote(tmp_path: Path, tiny_checkpoints: Path) -> None:
    records = [{"instruction": "Repeat it.", "input": word, "output": word} for word in ("fox", "dog", "hen", "owl")]
    (tmp_path / "words.json").write_text(json.dumps(records))
    base, out = tiny_checkpoints / "tiny-base", tmp_path / "out"
    flags = ["--data", tmp_path / "words.json", "--base", base, "--out", out, "--lora.rank=3", "--optim.lr=0.05"]
    small = ["--steps=4", "--device=cpu", "--answer-tokens=4", "--sample-answers=0", "--lora.targets=c_attn,mlp.c_proj"]
    assert groundup.main(["instruct", *map(str, flags), *small]) == 0
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "adapter")
    idx = torch.randint(384, (2, 30))
    with torch.no_grad():
        ours = load_gpt(out)
        torch.testing.assert_close(ours.logits(ours(idx)), theirs(idx).logits, atol=1e-4, rtol=1e-4)
        plain = load_gpt(base)
        assert (plain.logits(plain(idx)) - theirs(idx).logits).abs().max() > 0.1
    assert "Trained" in (out / "README.md").read_text()


def test_what_read_the_texts_and_stays_from_then_on_is_there_again_after_an_interruption(
    tmp_path: Path, tiny_checkpoints: Path, tokenizer: Tokenizer
) -> None:
    settings = {"data": "texts.tsv", "out": tmp_path / "out", "base": tiny_checkpoints / "tiny-base", "device": "cpu"}
    config = ClassifyConfig.model_validate({**settings, "trainable": "head", "warmup_lm_steps": 3})
    examples = [Example(f"The fox number {i} jumps over the dog." * 5, ("odd",)) for i in range(20)]
    folder = RunFolder(tmp_path / "run")
    seed_all(1)
    before = build_classifier(config, tokenizer, examples, num_labels=2, folder=folder)
    (folder.path / "snapshots" / "step-00000001").mkdir(parents=True)
    assert folder.resume_step == 1
    again = build_classifier(config, tokenizer, examples, num_labels=2, folder=folder)
    read = load_gpt(config.base or "").wte.weight
    assert not torch.equal(before.gpt.wte.weight, read)
    for (name, one), other in zip(before.gpt.named_parameters(), again.gpt.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_digest_of_a_base_is_of_its_weights(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "one", make_gpt(make_config("llama")), None)
    write(tmp_path / "same", make_gpt(make_config("llama")), None)
    write(tmp_path / "other", make_gpt(make_config("llama"), seed=1), None)
    assert base_digest(tmp_path / "one") == base_digest(tmp_path / "same")
    assert base_digest(tmp_path / "one") != base_digest(tmp_path / "other")


def test_the_digest_of_an_adapter_is_of_all_that_makes_its_weights(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "base", make_gpt(make_config("llama")), None)
    config = FinetuneConfig.model_validate({"out": "x", "base": tmp_path / "base", "lora": {"rank": 2}})
    model = load_base(tmp_path / "base", config)
    write(tmp_path / "run", model, prepare(model, config))
    adapter = tmp_path / "run" / "adapter"
    found = [base_digest(adapter)]
    settings = adapter / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    found.append(base_digest(adapter))
    shutil.rmtree(tmp_path / "base")
    write(tmp_path / "base", make_gpt(make_config("llama"), seed=1), None)
    found.append(base_digest(adapter))
    assert len(set(found)) == 3


def test_a_rank_above_that_of_a_whole_update_is_refused_by_name(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "base", make_gpt(make_config("llama")), None)
    settings = {"out": "x", "base": tmp_path / "base", "lora": {"rank": 17, "targets": ["q_proj", "k_proj"]}}
    config = FinetuneConfig.model_validate(settings)
    with pytest.raises(
        ValueError, match=r"--lora.rank: 17 is more than .*k_proj has, which is 16 x 32; give at most 16"
    ):
        prepare(load_base(tmp_path / "base", config), config)
