"""Tensors to and from files, one at a time: neither writing nor reading holds a second copy of a model.

Reading maps the file, and hands its pages back as soon as they are copied: they would count as the process's memory.
It knows the safetensors format (github.com/huggingface/safetensors) and PyTorch's own, and nothing of models.
"""

import ctypes
import json
import mmap
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.directory import WEIGHTS_FILE, WEIGHTS_INDEX_FILE, CheckpointError

SHARD_BYTES = 5 * 10**9
"""Weights above this go into several files, none of them larger."""
PIECE_BYTES = 8 * 2**20
"""Tensors are copied and written in pieces of about this size."""
DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor to write, as a view that need not be contiguous."""

    name: str
    tensor: Tensor
    dtype: torch.dtype
    make: Callable[[], Tensor] | None = None
    """Makes what is written in the place of `tensor`, which then tells the shape alone."""

    @property
    def num_bytes(self) -> int:
        return self.tensor.numel() * self.dtype.itemsize


def write_tensors(folder: Path, tensors: Sequence[NamedTensor], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write safetensors into `folder`: one file, or several and their index where one would be too large."""
    shards: list[list[NamedTensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(each.num_bytes for each in shards[-1]) + tensor.num_bytes > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        _write_shard(folder / WEIGHTS_FILE, tensors)
        return
    stem = WEIGHTS_FILE.removesuffix(".safetensors")
    names = [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard)
    weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = {"total_size": sum(tensor.num_bytes for tensor in tensors)}
    (folder / WEIGHTS_INDEX_FILE).write_text(json.dumps({"metadata": total, "weight_map": weight_map}, indent=2))


def _write_shard(path: Path, tensors: Sequence[NamedTensor]) -> None:
    with path.open("wb") as file:
        write_safetensors(file, tensors)


def write_safetensors(file: BinaryIO, tensors: Sequence[NamedTensor], facts: Mapping[str, str] | None = None) -> None:
    """Write tensors in the safetensors format, the same bytes whenever they are the same.

    Args:
        facts: further metadata; the library itself writes it in random order.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(facts or {})}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.num_bytes
        shape = list(tensor.tensor.shape)
        header[tensor.name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        content = tensor.tensor if tensor.make is None else tensor.make()
        for rows in pieces(content):
            piece = content[rows].to("cpu", tensor.dtype).contiguous()
            file.write(piece.view(torch.uint8).numpy().data)


def pieces(tensor: Tensor) -> Iterator[slice]:
    """Cut a tensor along its rows into pieces of about `PIECE_BYTES`."""
    rows = max(1, PIECE_BYTES * len(tensor) // max(1, tensor.nbytes))
    return (slice(start, start + rows) for start in range(0, len(tensor), rows))


def copy_mapped(target: Tensor, mapped: Tensor) -> None:
    """Fill `target` from a tensor of a mapped file, which is read from the file again if it is looked at later."""
    with torch.no_grad():
        for rows in pieces(mapped):
            target[rows].copy_(mapped[rows])
            _release(mapped[rows])


def _release(mapped: Tensor) -> None:
    """Hand whole pages of a mapped file back to the system (madvise, POSIX)."""
    if not hasattr(mmap, "MADV_DONTNEED") or not mapped.is_contiguous():
        return  # a repeated (stride 0) tensor seems longer than its part of the file: what follows is not ours
    first = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (mapped.data_ptr() + mapped.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def mapped_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a safetensors file by name, for `copy_mapped`.

    Raises:
        CheckpointError: the file is damaged or of another format.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                yield name, stored.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error}); fetch or write it again") from None


def mapped_pickle(file: Path) -> Any:
    """What `torch.save` wrote, its tensors for `copy_mapped`; plain values and tensors only, code never runs.

    Raises:
        CheckpointError: the file is damaged, old, of another format, or holds anything but plain values and tensors.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file}: refused: it holds more than tensors and plain values, and reading that could run any code; "
            "save `model.state_dict()` alone"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: not a whole file of torch.save ({reason}); fetch or write it again") from None
