"""Speed over lengths of context and over numbers of requests: what each further token and each further stream costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from model.config import PRESETS
from service.bench.contenders import Contender
from service.bench.prompts import make_prompts
from service.settings import BenchSettings

STREAMS = (1, 2, 4, 8, 16, 32, 64, 128)
SHORTEST_CONTEXT = 64
NEW_TOKENS = 16
"""Tokens that follow each prompt of the curve over contexts."""


@dataclass(frozen=True, slots=True)
class Point:
    """Medians at one place of a curve."""

    at: int
    """Tokens of the prompt, or number of requests."""
    prefill_rate: float
    """Prompt tokens per second."""
    decode_rate: float
    """New tokens per second after the first, all streams together."""
    step_s: float
    """Seconds between two tokens of a stream."""


def over_contexts(contender: Contender, settings: BenchSettings) -> list[Point]:
    """One request with prompts of doubling length, up to what leaves room for its answer."""
    longest = PRESETS[settings.preset].block_size - NEW_TOKENS
    lengths = [SHORTEST_CONTEXT]
    while lengths[-1] * 2 < longest:
        lengths.append(lengths[-1] * 2)
    return [_measure(contender, settings, length, 1, length, NEW_TOKENS) for length in [*lengths, longest]]


def over_streams(contender: Contender, settings: BenchSettings) -> list[Point]:
    """More and more requests at once."""
    return [
        _measure(contender, settings, count, count, settings.prompt_tokens, settings.new_tokens) for count in STREAMS
    ]


def _measure(
    contender: Contender, settings: BenchSettings, at: int, count: int, num_prompt: int, num_new: int
) -> Point:
    first_s, rest_s = [], []
    own_seed = (num_new * 10_000 + num_prompt) * 1_000 + count  # of no other point: nothing of its prompts is cached
    for repeat in range(settings.repeats + 1):
        prompts = make_prompts(settings.preset, count, num_prompt, seed=100 * own_seed + 2 * repeat)
        first_s.append(contender.run(prompts, 1)[0])
        prompts = make_prompts(settings.preset, count, num_prompt, seed=100 * own_seed + 2 * repeat + 1)
        rest_s.append(max(contender.run(prompts, num_new)[0] - first_s[-1], 1e-9))
    first, rest = median(first_s[1:]), median(rest_s[1:])  # the first repeat sets things up
    step_s = rest / (num_new - 1)
    return Point(at, count * num_prompt / first, count / step_s, step_s)


def curve_table(title: str, points: Mapping[str, Sequence[Point]]) -> str:
    """Write the curves of several contenders as one markdown table."""
    head = [title, *(f"{name}: {what}" for name in points for what in ("prefill tok/s", "decode tok/s", "ms per step"))]
    lines = [head, ["---"] * len(head)]
    for row in zip(*points.values(), strict=True):
        figures = [f"{figure:.1f}" for p in row for figure in (p.prefill_rate, p.decode_rate, 1000 * p.step_s)]
        lines.append([str(row[0].at), *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_curves(path: Path, title: str, points: Mapping[str, Sequence[Point]]) -> None:
    """Draw tokens per second and seconds per step, both axes logarithmic.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    rates, steps = figure.subplots(1, 2)
    for name, curve in points.items():
        rates.loglog([p.at for p in curve], [p.decode_rate for p in curve], marker="o", label=name)
        steps.loglog([p.at for p in curve], [1000 * p.step_s for p in curve], marker="o", label=name)
    for axes, label in ((rates, "decode, tokens/s"), (steps, "ms per step")):
        axes.set(xlabel=title, ylabel=label)
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    figure.savefig(path)
