"""Peers that are measured where they are installed: OpenVINO GenAI and CTranslate2, both with 8-bit weights.

None of them is a dependency. What is missing is said in the report, with the command that brings it.
"""

import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from service.bench.contenders import Contender, Prompts
from service.bench.random_gpt2 import END
from service.settings import BenchSettings


class OpenVino:
    """`LLMPipeline` of OpenVINO GenAI, as it comes."""

    name = "OpenVINO int8"

    def __init__(self, path: Path, settings: BenchSettings) -> None:
        """`path` holds what `--openvino` was made from, and is not read."""
        import openvino
        import openvino_genai

        self._tensor = openvino.Tensor
        self._inputs = openvino_genai.TokenizedInputs
        self._pipeline = openvino_genai.LLMPipeline(
            str(settings.openvino), "CPU", INFERENCE_NUM_THREADS=torch.get_num_threads()
        )
        self._config = openvino_genai.GenerationConfig

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        idx = torch.tensor(prompts)
        config = self._config(max_new_tokens=num_new, ignore_eos=True, do_sample=False, apply_chat_template=False)
        inputs = self._inputs(self._tensor(idx.numpy()), self._tensor(torch.ones_like(idx).numpy()))
        started_s = time.perf_counter()
        result: Any = self._pipeline.generate(inputs, config)
        return time.perf_counter() - started_s, [list(ids) for ids in result.tokens]


class CTranslate2:
    """`Generator` of CTranslate2, one batch."""

    name = "CTranslate2 int8"

    def __init__(self, path: Path, settings: BenchSettings) -> None:
        import ctranslate2
        from transformers import AutoTokenizer

        converted = path.parent / f"{path.name}-ctranslate2"
        if not converted.exists():
            ctranslate2.converters.TransformersConverter(str(path)).convert(str(converted), quantization="int8")
            config = converted / "config.json"  # it wants every special token to have a name
            names = {key: name or END for key, name in json.loads(config.read_text()).items() if key.endswith("_token")}
            config.write_text(json.dumps(json.loads(config.read_text()) | names))
        self._tokens = AutoTokenizer.from_pretrained(path).convert_ids_to_tokens  # it wants tokens, not ids
        self._generator = ctranslate2.Generator(
            str(converted), compute_type="int8", inter_threads=1, intra_threads=torch.get_num_threads()
        )

    def run(self, prompts: Prompts, num_new: int) -> tuple[float, list[list[int]]]:
        tokens = [self._tokens(prompt) for prompt in prompts]
        started_s = time.perf_counter()
        results = self._generator.generate_batch(
            tokens,
            max_length=num_new,
            min_length=num_new,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=len(prompts),
        )
        return time.perf_counter() - started_s, [result.sequences_ids[0] for result in results]


def find_peers(settings: BenchSettings) -> Iterator[Callable[[Path, BenchSettings], Contender]]:
    """Name every peer that can run the checkpoint here."""
    if settings.openvino is not None and find_spec("openvino_genai") is not None:
        yield OpenVino
    if find_spec("ctranslate2") is not None:
        yield CTranslate2


def list_missing(settings: BenchSettings) -> Iterator[str]:
    """Say how each peer that is not here could be."""
    if find_spec("openvino_genai") is None:
        yield "OpenVINO GenAI: pip install openvino-genai"
    if settings.openvino is None:
        yield (
            "OpenVINO GenAI: in an environment of its own, pip install optimum-intel; groundup bench --checkpoint DIR; "
            "optimum-cli export openvino --model DIR --task text-generation-with-past --weight-format int8 OUT; then "
            "--checkpoint DIR --openvino OUT"
        )
    if find_spec("ctranslate2") is None:
        yield "CTranslate2: pip install ctranslate2"
    if find_spec("gguf") is None:
        yield "llama.cpp: pip install gguf"
    if settings.llama_server is None:
        yield (
            "llama.cpp: pip download --no-binary llama-cpp-python llama-cpp-python; unpack it; in vendor/llama.cpp, "
            "cmake -B build -DLLAMA_OPENSSL=OFF -DBUILD_SHARED_LIBS=OFF && cmake --build build --target llama-server; "
            "then --llama-server build/bin/llama-server"
        )
