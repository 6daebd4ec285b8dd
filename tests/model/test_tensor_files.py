"""Files of tensors: as the public libraries read them, in shards, and never in memory twice."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.directory import CheckpointError
from model.tensor_files import NamedTensor, copy_mapped, mapped_pickle, mapped_safetensors, write_tensors
from tests.peak_memory import measure

TENSORS = {
    "matrix": torch.randn(70, 30),
    "transposed": torch.randn(30, 70).T,
    "rows": torch.randn(90, 7)[20:60],
    "bias": torch.randn(5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shard_bytes", [10**9, 5000])
def test_the_public_library_reads_what_is_written(tmp_path: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    named = [NamedTensor(name, tensor, dtype) for name, tensor in TENSORS.items()]
    write_tensors(tmp_path, named, shard_bytes=shard_bytes)
    files = sorted(tmp_path.glob("*.safetensors"))
    read = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor.to(dtype)) for name, tensor in TENSORS.items())
    if shard_bytes == 10**9:
        assert [file.name for file in files] == ["model.safetensors"]
    else:
        assert len(files) > 1
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(tensor.numel() * dtype.itemsize for tensor in TENSORS.values())
        assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}


def test_tensors_are_copied_piece_by_piece_and_can_be_read_again(tmp_path: Path) -> None:
    large = torch.arange(5_000_000, dtype=torch.float32).view(-1, 50)  # several pieces
    write_tensors(tmp_path, [NamedTensor("large", large, torch.float32)])
    ((name, mapped),) = mapped_safetensors(tmp_path / "model.safetensors")
    target = torch.zeros(50, 100_000).T
    for _ in range(2):
        copy_mapped(target, mapped)
        assert name == "large"
        assert torch.equal(target, large)
        target.zero_()


def test_releasing_a_repeated_tensor_leaves_the_memory_behind_it_alone() -> None:
    memory = torch.ones(3 * 2**20)
    copy_mapped(torch.zeros(2, 2**20), memory[:1].expand(2, 2**20))
    assert memory.min() == 1


@pytest.mark.slow
def test_loading_and_saving_take_little_more_memory_than_the_model(tmp_path: Path) -> None:
    ratios = {phase: ratio for phase, (ratio, _) in measure(tmp_path / "model", "gpt2-small", shard_gb=1).items()}
    assert ratios["load"] <= 1.2
    assert ratios["save"] <= 1.2
    assert ratios["careless"] > 1.8


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of the file runs",)


def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"weight": torch.zeros(3)}, "config": Hostile()}, tmp_path / "hostile.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile()))
    for file, message in (("hostile.pt", "refused: it holds more than"), ("bare.pt", "not a whole file of torch.save")):
        with pytest.raises(CheckpointError, match=message):
            mapped_pickle(tmp_path / file)
    assert "code of the file runs" not in capsys.readouterr().out


def test_a_damaged_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3000)}, tmp_path / "cut.pt")
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for file in ("cut.pt", "old.pt", "absent.pt"):
        with pytest.raises(CheckpointError, match=f"{file}: not a whole file of torch.save"):
            mapped_pickle(tmp_path / file)
