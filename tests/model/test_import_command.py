"""`groundup import` end to end: the directory it writes is one that transformers loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import groundup
from model.checkpoint import load_gpt
from model.directory import read_checkpoint
from tests.foreign_files import IDX, write_book, write_nanogpt


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status and everything printed."""
    status = groundup.main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_transformers_loads_what_was_imported(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = write_nanogpt(tmp_path, has_bias=False)(IDX).logits.detach()
    out = tmp_path / "out"
    arguments = (tmp_path, "--out", out, "--tokenizer", tiny_checkpoints / "tiny-base")
    status, printed = run(capsys, *arguments)
    assert (status, printed) == (0, f"{out}: base model, 39,808 weights, context 64\n")
    theirs = AutoModelForCausalLM.from_pretrained(out)
    assert theirs.config.activation_function == "gelu"
    with torch.no_grad():
        torch.testing.assert_close(theirs.double()(IDX).logits, expected, atol=1e-10, rtol=0)
    assert AutoTokenizer.from_pretrained(out).encode("A small boat")
    assert "nanoGPT" in (out / "README.md").read_text()
    status, printed = run(capsys, *arguments)
    assert status == 2
    assert "--overwrite" in printed
    assert run(capsys, *arguments, "--overwrite", "--dtype", "bfloat16")[0] == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_file_without_a_vocabulary_asks_for_one(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_book(tmp_path, has_qkv_bias=True, is_joined=False)
    file, out = tmp_path / "model.pth", tmp_path / "out"
    status, printed = run(capsys, file, "--n-head", 4, "--out", out)
    assert status == 2
    assert printed.startswith("error: --tokenizer: required: a model of 384 tokens")
    assert run(capsys, file, "--n-head", 4, "--out", out, "--tokenizer", tiny_checkpoints / "tiny-chat")[0] == 0
    assert read_checkpoint(out).kind == "base"


def test_a_public_directory_keeps_its_tokenizer_template_and_end_tokens(
    tmp_path: Path, tiny_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(tiny_checkpoints / "tiny-chat", tmp_path / "source")
    assert run(capsys, source, "--out", tmp_path / "out")[0] == 0
    before, after = read_checkpoint(source), read_checkpoint(tmp_path / "out")
    assert (after.kind, after.eos_token_ids, after.config) == ("chat", before.eos_token_ids, before.config)
    pairs = zip(load_gpt(source).parameters(), load_gpt(tmp_path / "out").parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}, "model_args": {}, "config": Path("a class of its own")}, tmp_path / "ckpt.pt")
    status, printed = run(capsys, tmp_path, "--out", tmp_path / "out")
    assert status == 2
    assert printed.startswith(f"error: {tmp_path / 'ckpt.pt'}: refused: it holds more than tensors and plain values")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()
