"""What `groundup evaluate` can measure, each as a section of its report; the figures themselves are others' work."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from model.chat import ChatTemplate
from model.checkpoint import load_classifier, load_gpt
from model.directory import Checkpoint, CheckpointError
from model.gpt import GPT
from model.templates import input_heading
from model.tokenizer import Tokenizer
from training.chat_tools import ChatTools
from training.config.evaluate import EvaluateConfig
from training.config.label_names import renaming
from training.data.classification import TextBatches
from training.data.corpus import is_prepared
from training.data.encoding import fingerprint, text_bytes
from training.data.errors import DataError
from training.data.holdout import VALID
from training.data.ids import Ids
from training.data.instruction import ConversationBatches, read_numbered
from training.data.labelled import Columns, read_examples
from training.data.preference import read_preferences
from training.data.shards import MANIFEST, TokenFile, open_datatrove, open_shards, read_manifest
from training.data.slices import cut_files, find_files
from training.data.sources import Reader
from training.evaluation.answers import answer_metrics, is_exact, rouge_l
from training.evaluation.choices import Choice, Question, choice_metrics, choose, read_choices
from training.evaluation.intervals import Z95
from training.evaluation.labels import measure
from training.evaluation.last_word import last_word_metrics, read_passages
from training.evaluation.mmlu import MEASURES, SubjectResult, ask_mmlu, mmlu_metrics, must_have_examples, read_mmlu
from training.evaluation.preferences import preference_metrics
from training.evaluation.report import Picture, Section, Table, Value
from training.evaluation.text import loss_metrics, text_metrics, token_metrics
from training.machine.device import pick_device
from training.responses import RESPONSES_FILE, Response, respond, to_jsonl
from training.run.folder import read_settings

if TYPE_CHECKING:
    from training.evaluation.harness import GroundupLM

NUM_SHOWN = 10
"""Wrong answers that a report shows."""


@dataclass(frozen=True)
class Measured:
    """A checkpoint that is measured, loaded when it is first needed."""

    config: EvaluateConfig
    checkpoint: Checkpoint
    tokenizer: Tokenizer

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.config.device)

    @cached_property
    def model(self) -> GPT:
        return load_gpt(self.checkpoint.path, device=self.device)

    @cached_property
    def template(self) -> ChatTemplate:
        return ChatTemplate.from_directory(self.checkpoint.path, self.tokenizer)


def measure_text(measured: Measured, path: Path) -> Section:
    """Score texts, or the held-out side of prepared ones, with a language model.

    Raises:
        DataError: there is no text, or it was prepared for another tokenizer.
    """
    config, tokenizer = measured.config, measured.tokenizer
    if is_prepared(path):
        shards, num_bytes = open_tokens(path, tokenizer, config.limit)
        figures = token_metrics(measured.model, shards, tokenizer, num_bytes=num_bytes, batch_size=config.batch_size)
    else:
        documents = itertools.islice(read_texts(path, config.text_column), config.limit)
        figures = text_metrics(measured.model, documents, tokenizer, batch_size=config.batch_size)
    return Section("text", "Text", figures)


def measure_labels(measured: Measured, path: Path) -> Section:
    """Score a file of labelled texts with a classifier.

    Raises:
        DataError: the file cannot be read, or has a label that the classifier lacks.
    """
    from training.evaluation.label_report import MISTAKES_FILE, LabelReport  # draws, which takes a second to import

    config, checkpoint = measured.config, measured.checkpoint
    separator = config.label_separator if checkpoint.is_multi_label else None
    columns = Columns(config.text_column, config.label_column, separator, renaming(config.label_names))
    examples = read_examples(path, columns)[: config.limit]
    max_length, cut = reading_of(checkpoint, config)
    texts = TextBatches(examples, checkpoint.labels, measured.tokenizer, max_length=max_length, cut=cut)
    model = load_classifier(checkpoint.path, device=measured.device)
    found = measure(
        model, texts, checkpoint.labels, is_multi_label=checkpoint.is_multi_label, batch_size=config.batch_size
    )
    report = LabelReport(checkpoint.name, found, [example.text for example in examples], notes=texts.notes)
    mistakes = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in report.mistakes())
    files = report.pictures() | {MISTAKES_FILE: mistakes.encode()} if config.out else {}
    text = report.sections().strip().replace("\n## ", "\n### ")
    return Section("labels", "Labels", found.metrics(), text, files=files, details=report.to_json())


def reading_of(checkpoint: Checkpoint, config: EvaluateConfig) -> tuple[int, Literal["end", "start"]]:
    """Return how many tokens of a text a classifier reads and what longer ones lose: as in training, if it says so."""
    trained = read_settings(checkpoint.path) or {}
    context, asked = checkpoint.config.block_size, trained.get("max_length")
    max_length = min(context, asked) if isinstance(asked, int) else context
    if config.cut is not None:
        return max_length, config.cut
    return max_length, "start" if trained.get("cut") == "start" else "end"


def measure_answers(measured: Measured, path: Path) -> Section:
    """Score a file of conversations with an assistant: what it would answer, and how likely it finds what is wanted.

    Raises:
        DataError: the file cannot be read, or no conversation fits the context.
    """
    config, tokenizer, template = measured.config, measured.tokenizer, measured.template
    numbered = dict(itertools.islice(read_numbered(path, heading=input_heading(template.source)).items(), config.limit))
    conversations = list(numbered.values())
    batches = ConversationBatches(
        conversations, template, tokenizer, block_size=measured.model.config.block_size, numbers=list(numbered)
    )
    batches.warn_of_dropped()
    tools = ChatTools(tokenizer, template, measured.checkpoint.eos_token_ids)
    responses = respond(measured.model, conversations, list(numbered), tools, config.max_tokens)
    losses = loss_metrics(measured.model, batches.in_order(config.batch_size))
    figures = {
        **answer_metrics([each.given for each in responses], [each.answer for each in responses]),
        **{"token_accuracy" if name == "accuracy" else name: value for name, value in losses.items()},
        "num_left_out_of_loss": len(batches.dropped),
    }
    scores = [rouge_l(each.response, each.answer) for each in responses]
    wrong: list[tuple[Value, ...]] = [
        (score, *_shown(each))
        for score, each in sorted(zip(scores, responses, strict=True), key=lambda pair: pair[0])
        if not is_exact(each.given, each.answer)
    ]
    tables = [Table("Wrong answers, the farthest first:", ("ROUGE-L", "question", "right", "given"), wrong[:NUM_SHOWN])]
    pictures = []
    if config.out is not None:
        from training.evaluation.charts import draw_histogram

        chart = draw_histogram(scores, title="Answers", label="ROUGE-L", low=0, high=1, num_bins=20)
        pictures = [Picture("rouge-l.png", "ROUGE-L of each answer", chart)]
    files = {RESPONSES_FILE: to_jsonl(responses)}
    return Section("answers", "Answers", figures, tables=tables if wrong else [], pictures=pictures, files=files)


def _shown(response: Response) -> tuple[str, str, str]:
    parts = response.messages[-1]["content"], response.answer, response.response
    first, second, third = (" ".join(part.split())[:160] for part in parts)
    return first, second, third


def measure_preferences(measured: Measured, path: Path) -> Section:
    """Score preferences with an assistant, beside a reference if there is one.

    Raises:
        DataError: the file cannot be read, or no pair fits the context.
    """
    config, template = measured.config, measured.template
    preferences, unused = read_preferences(path, heading=input_heading(template.source))
    reference = load_reference(config.reference, measured) if config.reference else None
    figures = preference_metrics(
        measured.model,
        preferences[: config.limit],
        template,
        measured.tokenizer,
        reference=reference,
        batch_size=config.batch_size,
    )
    counts = {f"records not used: {reason}": float(count) for reason, count in unused.items()}
    return Section("preferences", "Preferences", figures | counts)


def load_reference(path: Path, measured: Measured) -> GPT:
    """Load the model from which a gain is measured; it must read the same tokens.

    Raises:
        CheckpointError: it cannot be loaded, has another tokenizer, or a shorter context.
    """
    reference = load_gpt(path, device=measured.device)
    if fingerprint(Tokenizer.from_directory(path)) != fingerprint(measured.tokenizer):
        raise CheckpointError(f"--reference: {path} has another tokenizer than {measured.checkpoint.path}")
    if reference.config.block_size < measured.checkpoint.config.block_size:
        raise CheckpointError(f"--reference: {path} has a shorter context than {measured.checkpoint.path}")
    return reference


def measure_mmlu(measured: Measured, folder: Path) -> Section:
    """Ask the questions of MMLU, by letter and by the text of the answer.

    Raises:
        DataError: the folder holds no questions, or none that fits.
    """
    config = measured.config
    subjects = read_mmlu(folder, limit=config.limit)
    num_examples = 5 if config.num_fewshot is None else config.num_fewshot
    must_have_examples(subjects, num_examples)
    results = ask_mmlu(
        measured.model, measured.tokenizer, subjects, num_examples=num_examples, batch_size=config.batch_size
    )
    figures = mmlu_metrics(subjects, results)
    asked = [result for result in results if result.answers]
    rows: list[tuple[Value, ...]] = [
        (result.name.replace("_", " "), len(result.answers), *(result.share(name) for name in MEASURES))
        for result in asked
    ]
    table = Table("By subject:", ("subject", "questions", "letter", "text", "text, by character"), rows)
    pictures = [_draw_subjects(asked, figures["guessing"])] if config.out else []
    return Section("mmlu", "MMLU", figures, _cut_note(figures), [table], pictures)


def _draw_subjects(results: Sequence[SubjectResult], guessing: float) -> Picture:
    from training.evaluation.charts import draw_bars

    order = sorted(results, key=lambda result: -result.share("letter"))
    series = [("by letter", [r.share("letter") for r in order]), ("by text", [r.share("acc") for r in order])]
    names = [result.name.replace("_", " ") for result in order]
    return Picture("mmlu.png", "MMLU", draw_bars(names, series, title="MMLU", reference=("guessing", guessing)))


def measure_choices(measured: Measured, paths: Sequence[Path]) -> Section:
    """Ask multiple-choice questions, file by file.

    Raises:
        DataError: a file cannot be read, or none of its questions fits.
    """
    config = measured.config
    found: dict[str, Mapping[str, float]] = {}
    details: dict[str, list[dict[str, int | None]]] = {}
    for path in paths:
        questions = read_choices(path)[: config.limit]
        chosen = choose(measured.model, measured.tokenizer, questions, batch_size=config.batch_size)
        name = path.stem if path.stem not in found else str(path)
        found[name] = choice_metrics(questions, chosen)
        details[name] = [_detail(*each) for each in zip(questions, chosen, strict=True)]
    figures = {f"{name} {key}" if len(found) > 1 else key: v for name, m in found.items() for key, v in m.items()}
    pictures = []
    if config.out is not None:
        from training.evaluation.charts import draw_bars

        keys = (("likeliest answer", "acc"), ("per character", "acc_norm"), ("always the commonest", "commonest"))
        series = [(label, [metrics[key] for metrics in found.values()]) for label, key in keys]
        pictures = [Picture("choices.png", "Accuracy", draw_bars(list(found), series, title="Multiple choice"))]
    return Section("choices", "Multiple choice", figures, pictures=pictures, details={"chosen": details})


def _detail(question: Question, choice: Choice | None) -> dict[str, int | None]:
    by_sum, by_length = (None, None) if choice is None else (choice.by_sum, choice.by_length)
    return {"answer": question.answer, "by_sum": by_sum, "by_length": by_length}


def measure_last_words(measured: Measured, path: Path) -> Section:
    """Ask for the last words of passages.

    Raises:
        DataError: the file cannot be read.
    """
    config = measured.config
    passages = read_passages(path)[: config.limit]
    figures, _ = last_word_metrics(measured.model, measured.tokenizer, passages, batch_size=config.batch_size)
    return Section("last_word", "Last words", figures, _cut_note(figures))


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
    return Section("harness", "lm-evaluation-harness", figures, _cut_note(figures), details=found)


def _cut_note(figures: Mapping[str, Value]) -> str:
    if not figures["num_cut"]:
        return ""
    return f"{figures['num_cut']} prompts are longer than the model's context: their beginnings were cut off."


def read_texts(path: Path, text_column: str | None) -> Iterator[str]:
    """Yield the documents of a file, a folder or a glob, a bounded part at a time.

    Raises:
        DataError: a file cannot be read.
    """
    reader = Reader(text_column)
    for piece in cut_files(find_files([path])):
        for part in piece:
            yield from reader.documents(part)


def open_tokens(folder: Path, tokenizer: Tokenizer, limit: int | None = None) -> tuple[list[Ids], int]:
    """Memory-map prepared tokens, the held-out ones if there are two sides, and count the bytes of their text.

    Args:
        limit: take the first so many documents; None: all.

    Raises:
        DataError: they are not whole, or were written with another tokenizer.
    """
    if (folder / VALID / MANIFEST).exists():
        folder = folder / VALID
    if not (folder / MANIFEST).exists():
        shards = _first_documents(open_datatrove(folder, tokenizer.vocab_size), limit)
        return shards, sum(text_bytes(ids, tokenizer) for ids in shards)
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != fingerprint(tokenizer):
        raise DataError(f"--data: {folder}: the token shards were not written with the checkpoint's tokenizer")
    shards = _first_documents(open_shards(folder), limit)
    if limit is None or limit >= manifest.num_documents:
        return shards, manifest.num_bytes
    return shards, sum(text_bytes(ids, tokenizer) for ids in shards)


def _first_documents(files: Sequence[TokenFile], limit: int | None) -> list[Ids]:
    if limit is None:
        return [file.ids for file in files]
    shards = []
    for file in files:
        taken = file.ends[:limit]
        shards.append(file.ids[: int(taken[-1]) if len(taken) else 0])
        limit -= len(taken)
    return shards
