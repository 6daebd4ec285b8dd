"""Which of several checkpoints an adapter was made for: by the name it gives, by digests of weights, or by shape.

An adapter fits one base only. Ours remember a digest of every tensor of it; those are compared with the files, a part
at a time, so that nothing need be loaded to say no. Free of torch; what digests are is `digest_of`'s knowledge alone.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.adapter_directory import StoredAdapter, misfit
from model.convert import canonical_name, public_tensors
from model.directory import ADAPTER_CONFIG_FILE, Checkpoint, CheckpointError, weight_files

PIECE_ELEMENTS = 1 << 22
"""Elements of a tensor that are rounded and digested at a time."""


def find_base(stored: StoredAdapter, candidates: Sequence[Checkpoint]) -> Checkpoint:
    """Return the checkpoint that an adapter belongs to.

    Raises:
        CheckpointError: none fits, or several do and nothing tells them apart.
    """
    named = [base for base in candidates if _is_named(stored, base)]
    for base in named[:1]:
        if (reason := misfit(stored, base) or _difference(stored, base)) is not None:
            raise CheckpointError(f"{stored.path}: made for another base than {base.name}: {reason}")
        return base
    fitting = [base for base in candidates if misfit(stored, base) is None]
    if stored.base_digests:
        fitting = [base for base in fitting if _difference(stored, base) is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(base.name for base in fitting)
        raise CheckpointError(
            f"{stored.path / ADAPTER_CONFIG_FILE}: base_model_name_or_path: fits {names}; name the one it was made for"
        )
    raise CheckpointError(
        f"{stored.path}: its base is not served ({stored.base_name}); serve that checkpoint beside it, or make one "
        f"model of both: groundup merge {stored.path} --base BASE --out OUT"
    )


def _is_named(stored: StoredAdapter, base: Checkpoint) -> bool:
    named = stored.config.base
    if not named:
        return False
    return Path(named).resolve() == base.path.resolve() or Path(named).name == base.name


def _difference(stored: StoredAdapter, base: Checkpoint) -> str | None:
    """Name the first tensor of the base that is not what the adapter remembers; None where all are, or none is."""
    if not stored.base_digests:
        return None
    for name, tensor in _stored_tensors(base):
        remembered = stored.base_digests.get(name)
        if remembered is not None and digest_of(tensor) != remembered:
            return f"tensor {name!r} has other values there"
    return None


def _stored_tensors(base: Checkpoint) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield each tensor of the weight files by its public name, in the layout of our parameters, mapped."""
    is_transposed = {tensor.public_name: tensor.is_transposed for tensor in public_tensors(base.config)}
    for file in weight_files(base.path):
        with file.open("rb") as content:
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
            start = content.tell()
        mapped = np.memmap(file, np.uint8, "r")
        for stored_name, facts in header.items():
            name = canonical_name(stored_name, base.config)
            if name in is_transposed:
                begin, end = facts["data_offsets"]
                tensor = mapped[start + begin : start + end].view(_DTYPES[facts["dtype"]]).reshape(facts["shape"])
                yield name, tensor.T if is_transposed[name] else tensor


_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""Stored types as numpy has them; bfloat16, which it lacks, by its bits."""


def digest_of(tensor: NDArray[Any]) -> str:
    """Return a short digest of a tensor's values, rounded to bfloat16; uint16 are bits of bfloat16 already."""
    found = hashlib.sha256()
    rows = max(1, PIECE_ELEMENTS // max(1, tensor[:1].size))
    for first in range(0, len(tensor), rows):
        found.update(_bfloat16(np.ascontiguousarray(tensor[first : first + rows])).data)
    return found.hexdigest()[:16]


def _bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even."""
    if values.dtype == np.uint16:
        return values
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
