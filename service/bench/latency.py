"""How long tokens keep one waiting: streams beside which long prompts arrive, and prompts whose beginning is known.

Random weights of a preset's shape, without a checkpoint or a server: what is measured is the order of work.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

import torch

from model.config import PRESETS
from model.cpu_linear import pack_linears
from model.gpt import GPT
from model.sampling_params import SamplingParams
from service.engine.engine import Engine
from service.engine.memory import default_page_size
from service.engine.pages import PagePool
from service.engine.request import Admission, Request
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler
from service.settings import BenchSettings

NUM_STREAMS = 8
STREAM_PROMPT_TOKENS = 64
LONG_PROMPT_TOKENS = 4000
NUM_LONG_PROMPTS = 2
QUIET_STEPS = 20
"""Steps without a long prompt that follow each one."""
SYSTEM_PROMPT_TOKENS = 900
OWN_TOKENS = 30
CONTEXT = 8192

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What streams waited between two tokens, and the long prompts for their first, in seconds."""

    name: str
    gaps_s: list[float]
    first_token_s: list[float]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """A request's time to its first token, and how much of its prompt the cache held."""

    seconds: float
    cached_tokens: int


def make_model(settings: BenchSettings) -> GPT:
    """Draw random weights, of the first of the types, for a context that holds the long prompts."""
    config = PRESETS[settings.preset].model_copy(update={"block_size": CONTEXT})
    torch.manual_seed(0)
    is_rounded = settings.types[0] == "int8"
    model = GPT(config).to(settings.device, torch.float32 if is_rounded else getattr(torch, settings.types[0]))
    if settings.device == "cpu":
        pack_linears(model, "int8" if is_rounded else None)
    return model


def measure_head_of_line(model: GPT, settings: BenchSettings, clock: Clock = time.perf_counter) -> list[Waiting]:
    """Let long prompts arrive beside running streams: none, at once in one step, and cut as the settings have it."""
    whole = LONG_PROMPT_TOKENS + NUM_STREAMS
    limits = [
        ("no long prompt", settings.max_num_batched_tokens, settings.prefill_chunk_tokens, 0),
        ("prompts in one step", whole, whole, NUM_LONG_PROMPTS),
        ("steps of the whole budget", settings.max_num_batched_tokens, None, NUM_LONG_PROMPTS),
        ("chunks beside streams", settings.max_num_batched_tokens, settings.prefill_chunk_tokens, NUM_LONG_PROMPTS),
    ]
    return [
        _measure_streams(name, _make_engine(model, settings, budget, chunk), num_long, clock)
        for name, budget, chunk, num_long in limits
    ]


def measure_shared_prefix(model: GPT, settings: BenchSettings, clock: Clock = time.perf_counter) -> list[FirstToken]:
    """Ask twice with one system prompt and different questions."""
    engine = _make_engine(model, settings, settings.max_num_batched_tokens, settings.prefill_chunk_tokens)
    system = _draw(SYSTEM_PROMPT_TOKENS, "system")
    answers = []
    for question in ("first", "second"):
        request = Request(question, [*system, *_draw(OWN_TOKENS, question)], _params(2))
        started_s = clock()
        engine.add(request)
        admissions = []
        while not request.output_ids:
            admissions += [output for output in engine.step() if isinstance(output, Admission)]
        answers.append(FirstToken(clock() - started_s, admissions[0].cached_tokens))
        engine.abort(question)
    return answers


def waiting_table(results: Sequence[Waiting]) -> str:
    """Write what streams waited as markdown."""
    lines = [
        f"| {NUM_STREAMS} streams | ITL p50, ms | p99, ms | worst, ms | TTFT of a long prompt, s |",
        "| --- " * 5 + "|",
    ]
    for result in results:
        cuts = quantiles(result.gaps_s, n=100, method="inclusive")
        firsts = f"{max(result.first_token_s):.2f}" if result.first_token_s else ""
        figures = " | ".join(f"{1000 * value:.0f}" for value in (cuts[49], cuts[98], max(result.gaps_s)))
        lines.append(f"| {result.name} | {figures} | {firsts} |")
    return "\n".join(lines)


def first_token_table(results: Sequence[FirstToken]) -> str:
    """Write times to first tokens as markdown."""
    lines = ["| request | prompt tokens found in the cache | TTFT, ms |", "| --- " * 3 + "|"]
    for name, result in zip(("first", "second"), results, strict=True):
        lines.append(f"| {name} | {result.cached_tokens} | {1000 * result.seconds:.0f} |")
    return "\n".join(lines)


def _measure_streams(name: str, engine: Engine, num_long: int, clock: Clock) -> Waiting:
    streams = [
        Request(f"stream {i}", _draw(STREAM_PROMPT_TOKENS, f"stream {i}"), _params(4096)) for i in range(NUM_STREAMS)
    ]
    for request in streams:
        engine.add(request)
    while not all(request.output_ids for request in streams):
        engine.step()
    gaps_s: list[float] = []
    first_token_s: list[float] = []
    gaps_s += [_time_step(engine, clock) for _ in range(QUIET_STEPS)]
    for i in range(num_long):
        newcomer = Request(f"long {i}", _draw(LONG_PROMPT_TOKENS, f"{name} {i}"), _params(1))
        engine.add(newcomer)
        before = len(gaps_s)
        while not newcomer.output_ids:
            gaps_s.append(_time_step(engine, clock))
        first_token_s.append(sum(gaps_s[before:]))
        gaps_s += [_time_step(engine, clock) for _ in range(QUIET_STEPS)]
    return Waiting(name, gaps_s, first_token_s)


def _time_step(engine: Engine, clock: Clock) -> float:
    """Each stream gets a token in each step, so a step's time is what they wait."""
    started_s = clock()
    engine.step()
    return clock() - started_s


def _make_engine(model: GPT, settings: BenchSettings, budget: int, chunk: int | None) -> Engine:
    page_size = default_page_size(model.config, settings.device, model.wte.weight.dtype)
    pool = PagePool(num_pages=3 * CONTEXT // page_size, page_size=page_size)
    scheduler = Scheduler(
        pool,
        block_size=CONTEXT,
        max_num_seqs=NUM_STREAMS + 1,
        max_num_batched_tokens=budget,
        prefill_chunk_tokens=chunk,
    )
    return Engine(scheduler, GPTRunner(model, num_pages=pool.num_pages, page_size=page_size))


def _params(max_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)


def _draw(count: int, seed: str) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(200) for _ in range(count)]
