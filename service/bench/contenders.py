"""Our engine and transformers, each as the time it takes to continue a batch of prompts by a number of tokens.

All greedy, all to the last token: no end token stops any, and exact ones give the same ids.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import GPT2LMHeadModel
from transformers.utils.logging import disable_progress_bar

from model.sampling_params import SamplingParams
from service.engine.build import build_engine
from service.engine.request import NewToken, Request
from service.settings import BenchSettings, NumberType

Prompts = Sequence[list[int]]


class Contender(Protocol):
    """Something that continues prompts."""

    name: str

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        """Continue all prompts at once; return the seconds it took and the new ids of each."""


class OurEngine:
    """The engine of the service, in this process."""

    def __init__(
        self, path: Path, settings: BenchSettings, number_type: NumberType = "float32", cuda_graphs: bool = True
    ) -> None:
        self.name = f"engine {number_type}" + ("" if cuda_graphs else " without graphs")
        self._engine = build_engine(
            path,
            max_num_seqs=max(settings.max_num_seqs, *settings.concurrency),
            max_num_batched_tokens=settings.max_num_batched_tokens,
            prefill_chunk_tokens=settings.prefill_chunk_tokens,
            kv_cache_tokens=settings.kv_cache_tokens,
            page_size=settings.page_size,
            device=settings.device,
            dtype="float32" if number_type == "int8" else number_type,
            quantization="int8" if number_type == "int8" else None,
            cuda_graphs=cuda_graphs,
            compile_steps=settings.compile,
        )

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        params = SamplingParams(max_tokens=num_new, temperature=0, ignore_eos=True)
        outputs: list[list[int]] = [[] for _ in prompts]
        started_s = time.perf_counter()
        for i, prompt_ids in enumerate(prompts):
            self._engine.add(Request(str(i), prompt_ids, params))
        while self._engine.has_work:
            for output in self._engine.step():
                if isinstance(output, NewToken) and output.token_id is not None:
                    outputs[int(output.uid)].append(output.token_id)
        return time.perf_counter() - started_s, outputs


class Transformers:
    """`generate` of the library, one batch; float32 on a CPU, bfloat16 on a GPU."""

    name = "transformers"

    def __init__(self, path: Path, settings: BenchSettings) -> None:
        disable_progress_bar()  # type: ignore[no-untyped-call]
        dtype = torch.float32 if settings.device == "cpu" else torch.bfloat16
        model: Any = GPT2LMHeadModel.from_pretrained(path, dtype=dtype)
        self._model = model.to(settings.device).eval()
        self._model.generation_config.eos_token_id = None

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        idx = torch.tensor(prompts, device=self._model.device)  # (B, T)
        started_s = time.perf_counter()
        with torch.inference_mode():
            result = self._model.generate(
                idx,
                attention_mask=torch.ones_like(idx),
                max_new_tokens=num_new,
                do_sample=False,
                pad_token_id=0,
            )
        outputs = result[:, idx.shape[1] :].tolist()
        return time.perf_counter() - started_s, outputs
