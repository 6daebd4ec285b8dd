import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup
from model.checkpoint import load_gpt
from model.directory import CheckpointError, read_checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training import dpo, reference
from training.config.dpo import DpoConfig
from training.data.errors import DataError
from training.data.instruction import conversation
from training.data.pairs import Pair, PreferenceBatches
from training.dpo import prefer, run
from training.evaluation.preferences import loss_metrics
from training.finetune import prepare
from training.preference_loss import PreferenceLoss, sequence_log_probs
from training.reference import kept_log_probs, reference_log_probs
from training.run.folder import OutputError
from training.run.tracking import MetricsLog, read_records

ANIMALS = ["fox", "dog", "cat", "hen", "cow", "owl", "ant", "bee", "elk", "cod"]
RECORDS = [
    {"instruction": "Repeat it.", "input": animal, "chosen": f"A {animal}.", "rejected": f"No {animal}, you fool!"}
    for animal in ANIMALS
]
PACE = ["--device=cpu", "--num-threads=1", "--batch-size=4", "--eval-interval=2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "animals.json"
    path.write_text(json.dumps(RECORDS))
    return path


def make_run(data: Path, base: Path, **changes: object) -> DpoConfig:
    settings = {"data": data, "base": base, "out": data.with_name("tuned"), "steps": 4, "batch_size": 4}
    return DpoConfig.model_validate({**settings, "eval_interval": 2, "device": "cpu", **changes})


def test_a_tuned_assistant_keeps_all_of_its_base_but_the_weights(data: Path, tiny_checkpoints: Path) -> None:
    base = tiny_checkpoints / "tiny-chat"
    config = make_run(data, base)
    run(config)
    ours, theirs = read_checkpoint(config.out), read_checkpoint(base)
    assert ours.kind == "chat"
    assert ours.eos_token_ids == theirs.eos_token_ids
    assert (config.out / "chat_template.jinja").read_bytes() == (base / "chat_template.jinja").read_bytes()
    weights = [load_gpt(path).h[0].attn.qkv.weight for path in (base, config.out)]  # type: ignore[union-attr]
    assert not torch.equal(*weights)
    assert not config.out.with_name("tuned.run").exists()
    train = [record for record in read_records(config.out / "metrics.jsonl") if record["kind"] == "train"]
    assert {"chosen_reward", "rejected_reward", "margin", "accuracy"} <= train[0].keys()
    assert train[0]["loss"] == pytest.approx(0.6931, abs=1e-4)  # at first the model is its own reference
    assert "Margin between them" in (config.out / "README.md").read_text()


def test_prompts_that_are_to_be_measured_on_are_left_out(
    data: Path, tiny_checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [conversation("Repeat it.", "", given=animal)[:1] for animal in ANIMALS]
    lines = [json.dumps({"messages": messages, "answer": "x", "response": "y"}) for messages in asked]
    held_out = tmp_path / "responses.jsonl"
    held_out.write_text("\n".join(lines[:3]))
    run(make_run(data, tiny_checkpoints / "tiny-chat", without=held_out))
    assert "held out by --without (3)" in caplog.text
    held_out.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"--without: .* holds every prompt"):
        run(make_run(data, tiny_checkpoints / "tiny-chat", without=held_out, overwrite=True))


@pytest.mark.parametrize("changes", [{}, {"loss": "sigmoid_norm", "beta": 1.0}, {"lora": {"rank": 4}}], ids=str)
def test_margin_and_accuracy_rise(data: Path, tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    draw: Callable[[int], list[int]] = lambda size: torch.randint(10, 380, (size,), generator=generator).tolist()  # noqa: E731
    pairs = [Pair(number, draw(4), draw(3), draw(5)) for number in range(24)]
    config = make_run(data, Path("unused"), steps=30, batch_size=8, optim={"name": "adamw", "lr": 5e-3}, **changes)
    model = make_gpt(make_config("llama"))
    prepare(model, config)
    known = {"train": reference_log_probs(model, PreferenceBatches(pairs, tokenizer), config)}
    known["valid"] = known["train"]
    batches = PreferenceBatches(pairs, tokenizer, known["valid"]).in_order(8)
    before = loss_metrics(model, batches, dpo.loss_of(config))
    assert before["margin"] == pytest.approx(0, abs=1e-5)
    log = MetricsLog()
    prefer(model, pairs, pairs, known, tokenizer, config, log=log)
    after = loss_metrics(model, batches, dpo.loss_of(config))
    assert after["margin"] > 0.5
    assert after["accuracy"] > 0.9
    assert after["loss"] < 0.5 < before["loss"]
    steps, margins = log.series("valid", "margin")
    assert steps[0] == 2
    assert margins[-1] > margins[0]
    assert not log.series("valid", "perplexity")[0]  # of pairs it means nothing


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_of_fresh_adapters_is_the_base_without_them(data: Path, tokenizer: Tokenizer, dtype: str) -> None:
    config = make_run(data, Path("unused"), lora={"rank": 4, "base_dtype": dtype})
    pairs = [Pair(1, [5, 6], [7, 8, 9], [10]), Pair(2, [11], [12], [13, 14, 15])]
    model = make_gpt(make_config("llama")).to(getattr(torch, dtype))
    bare = reference_log_probs(model, PreferenceBatches(pairs, tokenizer), config)
    prepare(model, config)
    assert torch.equal(reference_log_probs(model, PreferenceBatches(pairs, tokenizer), config), bare)


def test_no_more_pairs_are_looked_at_at_once_than_is_allowed(data: Path, tokenizer: Tokenizer) -> None:
    pairs = [Pair(i, [5 + i], [20 + i, 3], [50 + i]) for i in range(6)]
    model, config = make_gpt(make_config("llama")), make_run(data, Path("unused"), micro_batch_size=1)
    parts = {name: PreferenceBatches(pairs, tokenizer) for name in ("train", "valid")}
    widths: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: widths.append(len(inputs[0])))
    known = {name: reference_log_probs(model, batches, config) for name, batches in parts.items()}
    prefer(model, pairs, pairs, known, tokenizer, config)
    assert set(widths) == {2}


def test_a_model_that_has_not_moved_has_gained_nothing_in_half_precision_too(
    data: Path, tiny_checkpoints: Path
) -> None:
    config = make_run(data, tiny_checkpoints / "tiny-chat", precision="bf16", steps=1, optim={"lr": 1e-30})
    run(config)
    card = (config.out / "README.md").read_text()
    assert re.search(r"^\| Margin between them \| -?0(\.0*)? \|$", card, re.MULTILINE)


def test_the_reference_does_not_depend_on_batches_or_dropout(data: Path, tokenizer: Tokenizer) -> None:
    pairs = [Pair(i, [5 + i] * (1 + i % 3), [20 + i] * (1 + i % 5), [50 + i] * (1 + i % 4)) for i in range(11)]
    model = make_gpt(make_config("llama", dropout=0.5)).train()
    batches = PreferenceBatches(pairs, tokenizer)
    found = [
        reference_log_probs(model, batches, make_run(data, Path("unused"), batch_size=size)) for size in (1, 4, 32)
    ]
    assert model.training
    batch = batches.collate(range(11))
    expected, _ = sequence_log_probs(model.eval(), batch["idx"].flatten(0, 1), batch["targets"].flatten(0, 1))
    for each in found:
        torch.testing.assert_close(each, expected.detach().view(-1, 2), rtol=1e-5, atol=1e-5)


def test_the_reference_is_kept_for_the_same_pairs_and_weights_only(
    data: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config, place = make_run(data, Path("unused")), tmp_path / "data" / "reference.safetensors"
    parts = {"train": PreferenceBatches([Pair(1, [5], [6], [7])], tokenizer)}
    first = kept_log_probs(make_gpt(make_config("llama")), parts, config, place, "a")["train"]
    other = make_gpt(make_config("llama"), seed=5)
    assert torch.equal(kept_log_probs(other, parts, config, place, "a")["train"], first)
    assert not torch.equal(kept_log_probs(other, parts, config, place, "b")["train"], first)
    place.write_bytes(place.read_bytes()[:20])
    assert not torch.equal(kept_log_probs(other, parts, config, place, "b")["train"], first)
    assert [path.name for path in place.parent.iterdir()] == [place.name]


class Interruption(Exception):
    """Stands for whatever may end a run."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_steps", "adapters"),
    [(0, []), (2, []), (3, ["--lora.rank=2", "--lora.dropout=0.2"])],
    ids=["before the first step", "after a snapshot", "with adapters"],
)
def test_an_interrupted_run_goes_on_bit_for_bit_with_the_reference_it_had(
    data: Path, tiny_checkpoints: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int, adapters: list[str]
) -> None:
    base = tiny_checkpoints / "tiny-chat"
    arguments = ["dpo", "--data", str(data), "--base", str(base), *PACE, *adapters, "--steps=4", "--optim.lr=1e-3"]
    assert groundup.main([*arguments, "--out", str(data.with_name("whole"))]) == 0

    real, calls = PreferenceLoss.__call__, []

    def loss(self: PreferenceLoss, model: GPT, batch: Any) -> Any:
        calls.append(model.training)
        if sum(calls) > num_steps:
            raise Interruption
        return real(self, model, batch)

    out = data.with_name("out")
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceLoss, "__call__", loss)
        with pytest.raises(Interruption):
            groundup.main([*arguments, "--out", str(out)])
    with monkeypatch.context() as patch:
        patch.setattr(reference, "reference_log_probs", lambda *_: pytest.fail("computed again"))
        assert groundup.main([*arguments, "--out", str(out), "--resume"]) == 0
    assert (out / "model.safetensors").read_bytes() == (data.with_name("whole") / "model.safetensors").read_bytes()


def test_a_resumed_run_must_read_the_same(data: Path, tiny_checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = data.with_name("base")
    shutil.copytree(tiny_checkpoints / "tiny-chat", base)
    config = make_run(data, base, save_interval=1)
    with monkeypatch.context() as patch:
        patch.setattr(dpo, "must_be_over", lambda _: (_ for _ in ()).throw(Interruption))
        with pytest.raises(Interruption):
            run(config)
    again = config.model_copy(update={"resume": True})
    data.write_text(json.dumps(RECORDS[1:]))
    with pytest.raises(OutputError, match="--data: not what the interrupted run"):
        run(again)
    data.write_text(json.dumps(RECORDS))
    shutil.copy(tiny_checkpoints / "tiny-base" / "model.safetensors", base)
    with pytest.raises(OutputError, match="--base: not what the interrupted run"):
        run(again)


def test_pairs_that_are_left_out_are_reported(
    data: Path, tiny_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"instruction": "Repeat it.", "chosen": "long " * 200, "rejected": "short"}
    same = {"instruction": "Repeat it.", "chosen": "same", "rejected": "same"}
    data.write_text(json.dumps([*RECORDS, long, same]))
    with caplog.at_level(logging.WARNING, logger="training"):
        run(make_run(data, tiny_checkpoints / "tiny-chat"))
    assert "left out 1 of 11 pairs, longer than the context of 128 tokens: records 11" in caplog.text
    assert "1 records make no pair: chosen and rejected are the same (1)" in caplog.text


def test_a_file_of_its_own_can_validate(data: Path, tiny_checkpoints: Path) -> None:
    valid = data.with_name("valid.jsonl")
    valid.write_text(json.dumps({"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}))
    config = make_run(data, tiny_checkpoints / "tiny-chat", valid_data=valid)
    run(config)
    assert "10 pairs of answers to train on, 1 held out" in (config.out / "README.md").read_text()


def test_prompts_to_validate_on_that_are_also_trained_on_are_told(
    data: Path, tiny_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    valid = data.with_name("valid.jsonl")
    new = {"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}
    valid.write_text(json.dumps(new) + "\n" + json.dumps({**RECORDS[0], "chosen": "Something else"}))
    run(make_run(data, tiny_checkpoints / "tiny-chat", valid_data=valid))
    assert "valid.jsonl: prompts of 1 pairs are also trained on, records 2" in caplog.text


@pytest.mark.parametrize(
    ("base", "message"),
    [("tiny-base", "has no chat template.*groundup instruct"), ("tiny-spam", "holds a classifier; give an assistant")],
)
def test_only_an_assistant_is_a_base(data: Path, tiny_checkpoints: Path, base: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        run(make_run(data, tiny_checkpoints / base))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "animals.json: is empty"),
        ('[{"instruction": "x", "output": "y"}]', "record 1 has no 'chosen'"),
        (json.dumps(RECORDS[:1]), "one prompt is too few"),
        (
            json.dumps([{"prompt": "Hi " * 200, "chosen": "a", "rejected": "b"}]),
            "none of 1 pairs fits the model's context",
        ),
    ],
)
def test_unusable_preferences_end_before_any_step_and_leave_nothing(
    data: Path, tiny_checkpoints: Path, content: str, message: str
) -> None:
    data.write_text(content)
    config = make_run(data, tiny_checkpoints / "tiny-chat")
    with pytest.raises(DataError, match=message):
        run(config)
    assert not config.out.with_name("tuned.run").exists()


def test_settings_out_of_range_name_their_flags(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["dpo", "--data=a", "--base=b", "--out=c"]
    for flag, value in (("--beta", "0"), ("--label-smoothing", "0.5"), ("--loss", "hinge"), ("--valid-fraction", "1")):
        assert groundup.main([*given, flag, value]) == 2
        assert capsys.readouterr().err.startswith(f"error: {flag}: ")


def test_one_flag_of_the_optimizer_leaves_the_others_as_they_are() -> None:
    given = ["--data=a", "--base=b", "--out=c", "--optim.lr=1e-4"]
    optim = groundup.parse(DpoConfig, given, prog="dpo").optim
    assert (optim.name, optim.lr, optim.weight_decay) == ("adamw", 1e-4, 0.0)
