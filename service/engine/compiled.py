"""Decode steps on a CPU, compiled: between two products of matrices one loop, instead of a dozen calls.

PyTorch compiles a step twice, for one row and for any number of them, with the C++ compiler of the machine, and keeps
the result on disk for the next start. Everything else is computed as it was: prompts, and rows with adapters.
"""

import os
import shutil
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from model.cached_attention import Row
from model.gpt import GPT
from model.kv_cache import KVPlan, PagedKVCache, new_slots
from model.table_attention import TableAttention

OPTIONS = {"compile_threads": 1}
"""More would leave processes behind that wait for another compilation."""
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
        torch._dynamo.config.accumulated_recompile_limit = 1 << 20  # it counts models long gone, too
        for memory in (*cache.keys, *cache.values):
            torch._dynamo.mark_static(memory)  # else the shapes of the process's first model would be thought to vary
        self._compiled = torch.compile(  # type: ignore[call-overload]
            self._step, fullgraph=True, isolate_recompiles=True, options=OPTIONS
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's compiler calls what PyTorch gives up
                self._compile(num_rows=1, num_pieces=1)
                self._compile(num_rows=16, num_pieces=20)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"--compile failed; leave it out, or mend what it needs: {reason[-500:]}") from error

    def covers(self, rows: Sequence[Row]) -> bool:
        """Whether a step is one token of each row, and no row is too long."""
        tile = self._cache.keys[0].shape[2]
        return all(row.length == 1 and row.start // tile * tile + tile <= LONGEST for row in rows)

    def run(self, token_ids: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Compute hidden states (N, C) of the rows' newest tokens."""
        page_size = self._cache.page_size
        inputs = [
            (token_id, row.start, *new_slots(row, page_size)) for token_id, row in zip(token_ids, rows, strict=True)
        ]
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
            bias=torch.zeros(num_pieces, width, self._cache.keys[0].shape[2]),
            owners=torch.zeros(num_pieces, dtype=torch.int64),
            pieces=torch.zeros(num_rows, most, dtype=torch.int64),
            is_piece=torch.zeros(num_rows, most),
        )
        inputs = torch.zeros(num_rows, 3, dtype=torch.int64)
        for tensor in (inputs, *table):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        for tensor in (table.tiles, table.bias, table.pieces, table.is_piece):
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        self._compiled(inputs, *table)


def check_compiler() -> None:
    """Refuse a machine that cannot compile, before any work is done.

    Raises:
        ValueError: there is no C++ compiler.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise ValueError(f"--compile needs a C++ compiler, and there is no {name} here; install g++ or set CXX")
