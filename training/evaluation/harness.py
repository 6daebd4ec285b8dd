"""Our models in lm-evaluation-harness: any of its tasks, its data from the hub or from local files.

The only file that knows the harness; it is an extra, and nothing else needs it.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import handle_stop_sequences
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from model.chat import ChatTemplate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.decode import greedy_answers
from training.evaluation.continuations import Pair, encode_pair, encode_text, opening_id, score_pairs

MAX_TOKENS = 256
"""Longest answer where a task names none: the harness's own default."""


class GroundupLM(LM):  # type: ignore[misc]  # the harness has no types
    """A model of ours as the harness sees one."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        name: str = "groundup",
        end_ids: Sequence[int] = (),
        template: ChatTemplate | None = None,
        batch_size: int = 32,
    ) -> None:
        """Wrap a model.

        Args:
            model: on the device to compute on.
            tokenizer: its own.
            name: under which the harness keeps prompts it has rendered.
            end_ids: tokens that end an answer, beside the tokenizer's own.
            template: renders tasks as conversations when the harness is asked to.
            batch_size: rows computed together.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.num_cut = 0
        """Prompts that lost their beginning so far, because they do not fit the model."""
        self._end_ids = {tokenizer.eos_id, *end_ids}
        self._name = name
        self._batch_size = batch_size

    @property
    def tokenizer_name(self) -> str:
        """Tell the harness apart from other models, for what it keeps of rendered prompts."""
        return self._name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the chat template, which the harness records."""
        return self.template.source if self.template is not None else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation; its control tokens are read back from the text when it is encoded.

        Raises:
            ValueError: the model has no chat template.
        """
        if self.template is None:
            raise ValueError("--harness.chat: the checkpoint has no chat template")
        ids = self.template.encode(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return self.tokenizer.decode(ids)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-probability of each (context, continuation), and whether greedy decoding would give it."""
        pairs = [
            encode_pair(context, continuation, self.tokenizer, parse_special=self.template is not None)
            for context, continuation in (request.args for request in requests)
        ]
        scores = score_pairs(self.model, pairs, batch_size=self._batch_size, title="harness", quiet=disable_tqdm)
        self.num_cut += sum(score.is_cut for score in scores)
        return [(score.log_prob, score.is_greedy) for score in scores]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each whole text, in windows laid as the harness prescribes."""
        windows = [self._windows(request.args[0]) for request in requests]
        flat = [pair for pairs in windows for pair in pairs]
        scores = iter(score_pairs(self.model, flat, batch_size=self._batch_size, title="harness", quiet=disable_tqdm))
        return [sum(next(scores).log_prob for _ in pairs) for pairs in windows]

    def _windows(self, text: str) -> list[Pair]:
        windows = get_rolling_token_windows(
            encode_text(text, self.tokenizer), opening_id(self.tokenizer), self.model.config.block_size, 1
        )
        return [Pair(tuple(before), tuple(after)) for before, after in map(make_disjoint_window, windows)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer each context greedily up to one of its stop strings, an end token or its number of tokens.

        Raises:
            DataError: a task asks for sampling, or for more tokens than the model's context holds.
        """
        answers: list[str] = [""] * len(requests)
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._rules(request.args[1]), []).append(place)
        for (max_tokens, stops), places in groups.items():
            contexts = [requests[place].args[0] for place in places]
            for place, text in zip(places, self._answer(contexts, max_tokens, stops), strict=True):
                answers[place] = text
        return answers

    def _rules(self, settings: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
        """Return how long an answer may be and what ends it."""
        if settings.get("do_sample") and settings.get("temperature") != 0:
            raise DataError("--harness.tasks: a task asks for sampling; only greedy decoding is measured here")
        limits = [settings[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if name in settings]
        max_tokens = int(limits[0]) if limits else MAX_TOKENS
        if max_tokens >= self.model.config.block_size:
            raise DataError(
                f"--harness.tasks: a task asks for answers of {max_tokens} tokens, and the model's context has "
                f"{self.model.config.block_size}; set max_gen_toks in its generation_kwargs"
            )
        eos = self.tokenizer.decode([self.tokenizer.eos_id])
        return max_tokens, tuple(handle_stop_sequences(settings.get("until"), eos=eos))

    def _answer(self, contexts: Sequence[str], max_tokens: int, stops: Sequence[str]) -> list[str]:
        parse_special = self.template is not None
        room = self.model.config.block_size - max_tokens
        prompts = [
            encode_text(context, self.tokenizer, parse_special=parse_special) or [opening_id(self.tokenizer)]
            for context in contexts
        ]
        self.num_cut += sum(len(prompt) > room for prompt in prompts)

        def has_stopped(answer: list[int]) -> bool:
            text = self.tokenizer.decode(answer)
            return any(stop in text for stop in stops)

        found = greedy_answers(
            self.model,
            [prompt[-room:] for prompt in prompts],
            end_ids=self._end_ids,
            max_tokens=max_tokens,
            batch_size=self._batch_size,
            has_stopped=has_stopped,
        )
        return [_before(self.tokenizer.decode(ids, skip_special=True), stops) for ids in found]


def _before(text: str, stops: Sequence[str]) -> str:
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


def run_tasks(
    lm: LM,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    files: Mapping[str, Path] | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    chat: bool = False,
) -> dict[str, dict[str, float]]:
    """Run tasks of the harness and return what each measured, by name; groups of tasks stand among them.

    Args:
        lm: the model.
        tasks: names, with `*` for several, or paths of YAML files.
        folder: with further tasks as YAML files.
        files: local data (`.jsonl`, `.json`, `.csv`, `.parquet`) that takes the place of what a task would download.
        num_fewshot: worked examples before each question; None: what the task says.
        limit: look at the first so many examples of each task.
        chat: render tasks as conversations.

    Raises:
        DataError: a task is unknown, or its data is not there.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stdout(StringIO()):  # the harness prints; our standard output is for results
        try:
            manager = _find_tasks(tasks, folder)
            found = simple_evaluate(
                lm,
                tasks=[_with_file(spec, files or {}) for spec in _expand(tasks, manager)],
                num_fewshot=num_fewshot,
                limit=limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                task_manager=manager,
                bootstrap_iters=1000,
                log_samples=False,
            )
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"--harness.tasks: {_reason(error)}") from error
    measured = {**found["results"], **(found.get("groups") or {})}
    numbers = {name: _numbers(values) for name, values in measured.items()}
    return {name: values for name, values in numbers.items() if values}


def _find_tasks(tasks: Sequence[str], folder: Path | None) -> TaskManager:
    """Index the folder's tasks, and the harness's own (thousands, which takes seconds) only if one is asked for."""
    if folder is not None and not folder.is_dir():
        raise DataError(f"--harness.folder: {folder}: no such folder")
    own = TaskManager(include_path=str(folder) if folder else None, include_defaults=False)
    named = [task for task in tasks if not task.endswith((".yaml", ".yml"))]
    return own if all(own.match_tasks([task]) for task in named) else _index(folder)


@functools.cache
def _index(folder: Path | None) -> TaskManager:
    return TaskManager(include_path=str(folder) if folder else None)


def _expand(tasks: Sequence[str], manager: TaskManager) -> list[str]:
    names: list[str] = []
    for task in tasks:
        matching = [task] if task.endswith((".yaml", ".yml")) else manager.match_tasks([task])
        if not matching:
            raise DataError(f"--harness.tasks: {task}: no such task; `lm_eval ls tasks` lists them")
        names += matching
    return names


def _with_file(task: str, files: Mapping[str, Path]) -> str | dict[str, Any]:
    """Put a local file in the place of a task's data set, for every split it reads."""
    file = files.get(task)
    if file is None:
        return task
    if not file.is_file():
        raise DataError(f"--harness.files: {file}: no such file")
    kind = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.get(file.suffix)
    if kind is None:
        raise DataError(f"--harness.files: {file}: give .jsonl, .json, .csv or .parquet")
    splits = ("test", "validation", "train")
    data_files = dict.fromkeys(splits, str(file.resolve()))
    own = {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": data_files}}
    return {"group": f"{task} of {file.name}", "task": [{"task": task, **own}]}  # in a group one may override


def _reason(error: Exception) -> str:
    lines = str(error.args[0] if error.args else error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers of a task, under short names; each filter of answers has its own."""
    return {
        _short(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _short(name: str) -> str:
    """Turn `acc,none` into `acc`, and `exact_match_stderr,strict` into `exact_match_strict_stderr`."""
    metric, _, chosen = name.partition(",")
    end = "_stderr" if metric.endswith("_stderr") else ""
    return metric.removesuffix(end) + (f"_{chosen}" if chosen not in ("", "none") else "") + end
