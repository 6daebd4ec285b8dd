"""Sections: questions whose answers are known: multiple choice, MMLU, the last words of passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.evaluation.choices import Choice, Question, choice_metrics, choose, read_choices
from training.evaluation.last_word import last_word_metrics, read_passages
from training.evaluation.measured import Measured
from training.evaluation.mmlu import MEASURES, SubjectResult, ask_mmlu, mmlu_metrics, must_have_examples, read_mmlu
from training.evaluation.report import Picture, Section, Table, Value


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
    return Section("mmlu", "MMLU", figures, cut_note(figures), [table], pictures)


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
    return Section("last_word", "Last words", figures, cut_note(figures))


def cut_note(figures: Mapping[str, Value]) -> str:
    """Say how many prompts had to be cut, if any had."""
    if not figures["num_cut"]:
        return ""
    return f"{figures['num_cut']} prompts are longer than the model's context: their beginnings were cut off."
