"""What a checkpoint says about its making: a model card, the curves, the settings and the metrics of the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.checkpoint import save_checkpoint
from model.classifier import GPTClassifier
from model.directory import Checkpoint
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.config.run import RunConfig
from training.run.curves import Run, draw
from training.run.folder import METRICS_FILE, SETTINGS_FILE, folder_of
from training.run.sources import SOURCES_FILE
from training.run.state import TrainerState
from training.run.tracking import MetricsLog

TASKS = {"base": "text-generation", "chat": "text-generation", "classifier": "text-classification"}

PLOT_FILE = "curves.png"


@dataclass(slots=True)
class Card:
    """The text of a model card, apart from what model and run say of themselves."""

    summary: str
    """What the model is and is for, in a sentence or two."""
    data: str
    """What it learned from."""
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    """Held-out results, in the order to show them."""
    reproduce: str = ""
    """The command that makes this checkpoint again."""
    notes: str = ""
    """Samples, limits, whatever else a reader should know; markdown."""


def save_run(
    config: RunConfig,
    model: GPT | GPTClassifier,
    tokenizer: Tokenizer,
    card: Card,
    log: MetricsLog,
    state: TrainerState,
    *,
    extra_files: Mapping[str, bytes] | None = None,
    **checkpoint: Any,
) -> Checkpoint:
    """Write the checkpoint of a finished run to `config.out`, with its card, plot, settings and metrics.

    Args:
        extra_files: more files by name, such as a report and its pictures.
        checkpoint: further arguments of `save_checkpoint`, such as `labels`, `chat_template`, `dtype`.

    Raises:
        CheckpointError: it cannot be written.
    """
    kind = "classifier" if "labels" in checkpoint else "chat" if "chat_template" in checkpoint else "base"
    text = render_card(card, config, model, state, kind=kind)
    sources = folder_of(config.out) / SOURCES_FILE
    files = {
        **({SOURCES_FILE: sources.read_bytes()} if sources.exists() else {}),
        SETTINGS_FILE: config.to_toml().encode(),
        METRICS_FILE: log.to_jsonl().encode(),
        PLOT_FILE: draw([Run(config.out.name, log.records)]),
        **(extra_files or {}),
    }
    return save_checkpoint(config.out, model, tokenizer, model_card=text, extra_files=files, **checkpoint)


def render_card(
    card: Card, config: RunConfig, model: GPT | GPTClassifier, state: TrainerState, *, kind: str = "base"
) -> str:
    """Return the model card as markdown, with the front matter that model hubs read."""
    shape = model.config
    facts = {
        "Architecture": f"{shape.family}, {shape.n_layer} layers, {shape.n_head} heads, width {shape.n_embd}",
        **describe_weights(model),
        "Context": f"{shape.block_size} tokens",
        "Vocabulary": f"{shape.vocab_size} tokens",
        "Steps": f"{state.step:,} of {config.steps:,}" + describe_choice(config, state),
        "Tokens read": f"{state.num_tokens:,}",
        "Training time": f"{state.seconds:.0f} s",
    }
    sections = [
        f"---\nlibrary_name: transformers\npipeline_tag: {TASKS[kind]}\ntags:\n- groundup\n---",
        f"# {config.out.name}",
        card.summary,
        "## Data\n\n" + card.data,
        "## Results\n\n" + markdown_table(card.metrics) if card.metrics else "",
        "## Recipe\n\n" + markdown_table(facts),
        f"![Loss, learning rate and speed over the steps]({PLOT_FILE})",
        f"## Settings\n\n```toml\n{config.to_toml()}```",
        f"## Make it again\n\n```sh\n{card.reproduce}\n```" if card.reproduce else "",
        card.notes,
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def describe_weights(model: GPT | GPTClassifier) -> dict[str, str]:
    """Say how many weights a model has, and how many trained where that is not all: some of them, or LoRA."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    total = sum(size for name, size in sizes.items() if not {"lora_A", "lora_B"} & set(name.split(".")))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {"Parameters": f"{total:,}"}
    if trained != total:
        facts["Trained"] = f"{trained:,} ({trained / total:.2%})"
    return facts


def describe_choice(config: RunConfig, state: TrainerState) -> str:
    """Say which step's weights were kept."""
    if config.keep_best and state.best_step not in (0, state.step):
        return f" (kept: step {state.best_step:,}, the lowest validation loss)"
    return ""


def markdown_table(rows: Mapping[str, float | int | str]) -> str:
    """Return a table of two columns."""
    lines = [
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in rows.items()
    ]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def repeat_command(verb: str, out: Path) -> str:
    """Return the command that repeats a run from the settings in its checkpoint."""
    return f"groundup {verb} --config {out}/{SETTINGS_FILE} --overwrite"
