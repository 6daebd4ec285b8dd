"""Decode steps on a CPU, compiled: between two products of matrices one loop, instead of a dozen calls.

PyTorch compiles a step twice, for one row and for any number of them, with the C++ compiler of the machine, and keeps
the result on disk for the next start. Everything else is computed as it was: prompts, and rows with adapters.
"""

import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from model.cached_attention import Row
from model.gpt import GPT
from model.kv_cache import KVPlan, PagedKVCache, new_slots
from model.opaque_product import meaning, number_products
from model.table_attention import TableAttention

OPTIONS = {"compile_threads": 1}
"""More would leave processes behind that wait for another compilation."""
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
HINTS_OF_PYTORCH = "Set TORCHDYNAMO_VERBOSE"
"""Its messages end so."""
LONGEST = 4096
"""PyTorch compiles sums over more numbers apart: rows with more tokens would be compiled when they come."""


class CompiledDecode:
    """The compiled step of one model and its cache."""

    def __init__(self, model: GPT, cache: PagedKVCache) -> None:
        """Compile, for as many threads as this one computes with; the cache must be empty.

        Raises:
            ValueError: PyTorch or the C++ compiler failed.
        """
        self._model = model
        self._cache = cache
        self._products = number_products(model)
        try:
            torch._dynamo.config.accumulated_recompile_limit = 1 << 20  # it counts models long gone, too
            for memory in (*cache.keys, *cache.values):
                torch._dynamo.mark_static(memory)  # else the first model's shapes would be thought to vary
            self._compiled = torch.compile(  # type: ignore[call-overload]
                self._step, fullgraph=True, isolate_recompiles=True, options=OPTIONS
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's compiler calls what PyTorch gives up
                self._compile(num_rows=1, num_pieces=1)
                self._compile(num_rows=16, num_pieces=20)
        except (RuntimeError, OSError) as error:
            advice = "leave it out, mend what it needs, or empty the directory that it keeps its results in"
            reason = " ".join(str(error).partition(HINTS_OF_PYTORCH)[0].split())[-500:]
            raise ValueError(f"--compile failed; {advice}, {os.environ.get(CACHE_VARIABLE)}: {reason}") from error

    def covers(self, rows: Sequence[Row]) -> bool:
        """Whether a step is one token of each row, and no row is too long."""
        tile = self._cache.keys[0].shape[2]
        return all(row.length == 1 and row.start // tile * tile + tile <= LONGEST for row in rows)

    def run(self, token_ids: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Compute hidden states (N, C) of the rows' newest tokens."""
        page_size = self._cache.page_size
        if max(token_ids) >= self._model.config.vocab_size:  # compiled code would end the process
            raise IndexError(f"{max(token_ids)} is no token of the vocabulary")
        inputs = [
            (token_id, row.start, *new_slots(row, page_size)) for token_id, row in zip(token_ids, rows, strict=True)
        ]
        with meaning(self._products):
            hidden: Tensor = self._compiled(torch.tensor(inputs), *TableAttention.of(rows, page_size))
        return hidden

    def _step(self, inputs: Tensor, *table: Tensor) -> Tensor:
        token_ids, positions, slots = inputs.unbind(1)  # each (B,)
        plan = KVPlan(self._cache, slots, TableAttention(*table))
        hidden: Tensor = self._model(token_ids[None], positions[None], plan=plan)  # (1, B, C)
        return hidden[0]

    def _compile(self, *, num_rows: int, num_pieces: int) -> None:
        """Compile for typical sizes, by which loops are divided among threads.

        No two of them are equal: that would become a condition. All but those of 1 may be others later.
        """
        width, most = 6, 3
        table = TableAttention(
            tiles=torch.zeros(num_pieces, width, dtype=torch.int64),
            is_seen=torch.ones(num_pieces, width, self._cache.keys[0].shape[2], dtype=torch.bool),
            owners=torch.zeros(num_pieces, dtype=torch.int64),
            pieces=torch.zeros(num_rows, most, dtype=torch.int64),
            is_piece=torch.zeros(num_rows, most),
        )
        inputs = torch.zeros(num_rows, 3, dtype=torch.int64)
        for tensor in (inputs, *table):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        for tensor in (table.tiles, table.is_seen, table.pieces, table.is_piece):
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        with meaning(self._products):
            self._compiled(inputs, *table)


def check_compiler() -> None:
    """Refuse a machine that cannot compile, before any work is done.

    Results are kept where `TORCHINDUCTOR_CACHE_DIR` says; else not where PyTorch would, in a directory for temporary
    files that anybody may have made, but in the user's own. They are programs, and run when they are found again.

    Raises:
        ValueError: there is no C++ compiler, or no directory for what it makes.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise ValueError(f"--compile needs a C++ compiler, and there is no {name} here; install g++ or set CXX")
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundup" / "compiled"
    directory = Path(os.environ.setdefault(CACHE_VARIABLE, str(own)))
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        fault = "it cannot be written"
    elif os.statvfs(directory).f_flag & getattr(os, "ST_NOEXEC", 0):
        fault = "no program may be run from there (it is mounted noexec)"
    else:
        return
    raise ValueError(f"--compile keeps what it compiles in {directory}, and {fault}: set {CACHE_VARIABLE} to another")
