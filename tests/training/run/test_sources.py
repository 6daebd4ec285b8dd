import json
import shutil
from pathlib import Path

import pytest

from model.directory import ADAPTER_CONFIG_FILE
from training.config.instruct import InstructConfig
from training.config.pretrain import PretrainConfig
from training.run.folder import OutputError, is_finished, run_folder
from training.run.sources import SOURCES_FILE, source_digests


def continue_text(folder: Path, *data: str, **changes: object) -> PretrainConfig:
    paths = [str(folder / name) for name in data]
    return PretrainConfig.model_validate({"data": paths, "out": folder / "out", **changes})


def test_a_digest_is_of_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.txt").write_text("two")
    config = continue_text(tmp_path, "a.txt", "more/*.txt")
    before = source_digests(config)
    assert before.keys() == {"--data"}
    (tmp_path / "more" / "notes.md").write_text("not read")
    (tmp_path / "a.txt").touch()
    assert source_digests(config) == before
    (tmp_path / "more" / "b.txt").write_text("owt")
    assert source_digests(config) != before
    (tmp_path / "a.txt").unlink()
    assert source_digests(config) == {}


def test_a_manifest_speaks_for_its_shards(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        (tmp_path / "tokens" / side).mkdir(parents=True)
        (tmp_path / "tokens" / side / "manifest.json").write_text(side)
        (tmp_path / "tokens" / side / "00000_tokens.ds").write_bytes(b"many ids")
    before = source_digests(continue_text(tmp_path, "tokens"))
    (tmp_path / "tokens" / "train" / "00000_tokens.ds").unlink()
    assert source_digests(continue_text(tmp_path, "tokens")) == before
    (tmp_path / "tokens" / "train" / "manifest.json").write_text("other shards")
    assert source_digests(continue_text(tmp_path, "tokens")) != before


def test_of_an_adapter_its_base_counts_and_what_is_told_about_it_does_not(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "adapter" / ADAPTER_CONFIG_FILE).write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    settings = {"data": tmp_path / "none.json", "base": tmp_path / "adapter", "out": tmp_path / "out"}
    config = InstructConfig.model_validate(settings)
    before = source_digests(config)
    assert before.keys() == {"--base"}
    (tmp_path / "adapter" / "README.md").write_text("# A card")
    assert source_digests(config) == before
    (tmp_path / "base" / "model.safetensors").write_bytes(b"other weights")
    assert source_digests(config) != before


def test_a_finished_run_is_not_finished_for_other_data(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    config = continue_text(tmp_path, "a.txt", resume=True)
    with run_folder(config) as folder:
        config.out.mkdir()
        for name in ("run.toml", SOURCES_FILE):
            shutil.copy(folder.path / name, config.out / name)
    assert is_finished(config)
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(OutputError, match=r"--data: not what the checkpoint .*out was made of; give that again, or"):
        is_finished(config)
    (tmp_path / "a.txt").unlink()
    assert is_finished(config)  # gone is not changed
