"""Sections: the answers that an assistant gives, and those that it prefers."""

import itertools
from pathlib import Path

from model.checkpoint import load_gpt
from model.directory import CheckpointError
from model.gpt import GPT
from model.templates import input_heading
from model.tokenizer import Tokenizer
from training.chat_tools import ChatTools
from training.data.encoding import fingerprint
from training.data.instruction import ConversationBatches, read_numbered
from training.data.preference import read_preferences
from training.evaluation.answers import answer_metrics, is_exact, rouge_l
from training.evaluation.measured import Measured
from training.evaluation.preferences import preference_metrics
from training.evaluation.report import Picture, Section, Table, Value
from training.evaluation.text import loss_metrics
from training.responses import RESPONSES_FILE, Response, respond, to_jsonl

NUM_SHOWN = 10
"""Wrong answers that a report shows."""


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
