"""Settings of `groundup evaluate`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg

from training.config.label_names import LabelNames
from training.config.run import RunConfig


class HarnessSettings(BaseModel):
    """Tasks of lm-evaluation-harness, run on the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tasks: tuple[str, ...] = ()
    """Names of tasks, with `*` for several, or YAML files that describe tasks; needs the extra `harness`."""
    folder: Path | None = None
    """Folder with YAML files of further tasks."""
    files: dict[str, Path] = {}
    """Local data for a task, instead of a download: `hellaswag=validation.jsonl`."""
    chat: bool = False
    """Ask an assistant through its chat template; left out: as a model that continues text."""


class EvaluateConfig(BaseSettings):
    """Measure a checkpoint on whatever data is given, in one report."""

    model_config = RunConfig.model_config

    checkpoint: CliPositionalArg[Path]
    """Checkpoint directory."""
    data: Path | None = None
    """What the checkpoint was made for: text for a base model, labelled texts for a classifier, conversations or
    preferences for an assistant, which can be measured on text as well."""
    mmlu: Path | None = None
    """Folder with `test/SUBJECT_test.csv` and `dev/SUBJECT_dev.csv`: asked by letter and by the text of the answer."""
    choices: tuple[Path, ...] = ()
    """Multiple choice: files of HellaSwag, ARC or PIQA, or records with question, choices and answer."""
    last_word: Path | None = None
    """Records with a `text` whose last word is to be found, as LAMBADA has them."""
    harness: HarnessSettings = HarnessSettings()
    """Tasks of lm-evaluation-harness."""
    out: Path | None = None
    """Folder for the report: report.md, report.json, pictures, answers; left out: only the figures are printed."""
    reference: Path | None = None
    """Preferences: checkpoint from which the gain is measured, such as the one that preference tuning started from."""
    num_fewshot: NonNegativeInt | None = None
    """Worked examples before each question; left out: 5 in MMLU, in the harness as the task says."""
    text_column: str | None = None
    """Column of the texts; left out: found by its usual names."""
    label_column: str | None = None
    """Classifier: column of the labels; left out: found by its usual names."""
    label_separator: str = ","
    """Classifier of several labels a text: what stands between them in a table."""
    label_names: LabelNames = ()
    """Classifier: its own names for labels of the file, such as `0=negative` and `1=positive`."""
    cut: Literal["end", "start"] | None = None
    """Classifier: what a text loses that is too long; left out: as in its training, else its end."""
    batch_size: PositiveInt = 32
    """Rows evaluated together."""
    limit: PositiveInt | None = None
    """Look at the first so many documents or examples only; in MMLU and the harness of each subject and task."""
    max_tokens: PositiveInt = 64
    """Assistant: longest answer."""
    device: str = "auto"
    """`auto` takes a GPU if there is one; else `cpu`, `cuda`, ..."""

    @model_validator(mode="after")
    def _check_measures(self) -> Self:
        if not (self.data or self.mmlu or self.choices or self.last_word or self.harness.tasks):
            raise ValueError("--data: required, or one of --mmlu, --choices, --last-word, --harness.tasks")
        if self.reference is not None and self.data is None:
            raise ValueError("--reference: needs --data with preferences")
        if self.num_fewshot is not None and not (self.mmlu or self.harness.tasks):
            raise ValueError("--num-fewshot: only --mmlu and --harness.tasks have worked examples; leave it out")
        if self.harness != HarnessSettings() and not self.harness.tasks:
            raise ValueError("--harness.tasks: required for the other settings of --harness to mean anything")
        if unasked := self.harness.files.keys() - set(self.harness.tasks):
            name = min(unasked)
            raise ValueError(f"--harness.files: {name} is none of --harness.tasks")
        return self
