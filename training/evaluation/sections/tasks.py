"""Section: tasks of lm-evaluation-harness."""

from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.evaluation.intervals import Z95
from training.evaluation.measured import Measured
from training.evaluation.report import Section, Value
from training.evaluation.sections.questions import cut_note

if TYPE_CHECKING:
    from training.evaluation.harness import GroundupLM


def measure_tasks(measured: Measured) -> Section:
    """Run tasks of lm-evaluation-harness.

    Raises:
        DataError: the harness is not installed, or a task cannot be run.
    """
    try:
        from training.evaluation import harness
    except ModuleNotFoundError as error:
        raise DataError(f"--harness.tasks: {error.name} is missing: pip install 'groundup[harness]'") from None
    config, settings = measured.config, measured.config.harness
    lm: GroundupLM = harness.GroundupLM(
        measured.model,
        measured.tokenizer,
        name=measured.checkpoint.name,
        end_ids=measured.checkpoint.eos_token_ids,
        template=measured.template if settings.chat else None,
        batch_size=config.batch_size,
    )
    found = harness.run_tasks(
        lm,
        settings.tasks,
        folder=settings.folder,
        files=settings.files,
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        chat=settings.chat,
    )
    figures: dict[str, Value] = {}
    for name, values in found.items():
        for key in (key for key in values if not key.endswith("_stderr")):
            figures[f"{name} {key}"] = values[key]
            if f"{key}_stderr" in values:
                half = Z95 * values[f"{key}_stderr"]
                figures |= {f"{name} {key}_low": values[key] - half, f"{name} {key}_high": values[key] + half}
    figures["num_cut"] = lm.num_cut
    return Section("harness", "lm-evaluation-harness", figures, cut_note(figures), details=found)
