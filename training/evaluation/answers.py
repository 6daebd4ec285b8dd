"""Score the answers that an assistant gives against the wanted ones: exact match, contains, ROUGE-L."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from model.chat import ChatTemplate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.instruction import Conversation
from training.decode import greedy_answers
from training.evaluation.intervals import share_interval


class Answer(NamedTuple):
    """What a model said."""

    text: str
    is_finished: bool
    """Whether it came to its end."""


def answer(
    model: GPT,
    conversations: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    end_ids: Collection[int],
    max_tokens: int = 64,
) -> list[Answer]:
    """Answer each conversation's last question greedily; the answer it ends with is not shown to the model."""
    prompts = [template.encode(messages[:-1]) for messages in conversations]
    found = greedy_answers(model, prompts, end_ids=end_ids, max_tokens=max_tokens)
    return [Answer(tokenizer.decode(ids, skip_special=True), bool(ids) and ids[-1] in end_ids) for ids in found]


def is_exact(answer: Answer, wanted: str) -> bool:
    """Say whether an answer equals the wanted text, white space at the ends aside, and has come to its end."""
    return answer.is_finished and answer.text.strip() == wanted.strip()


def contains(answer: str, wanted: str) -> bool:
    """Say whether an answer says the wanted text somewhere, in whole words; letter case and space aside."""
    text, sought = (" ".join(part.casefold().split()) for part in (answer, wanted))
    return re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", text) is not None


def rouge_l(answer: str, wanted: str) -> float:
    """Return the ROUGE-L F-measure, 0 to 1 (Lin 2004, equation 4 with beta 1).

    Words are runs of letters and digits of any script, in lower case, not stemmed; where a text has none, it is 0.
    """
    given, sought = _words(answer), _words(wanted)
    common = _common_length(given, sought)
    return 2 * common / (len(given) + len(sought)) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by dynamic programming over one row."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for place, candidate in enumerate(other):
            row.append(above[place] + 1 if word == candidate else max(row[place], above[place + 1]))
    return row[-1]


def answer_metrics(answers: Sequence[Answer], wanted: Sequence[str]) -> dict[str, float]:
    """Return exact match with its 95% interval, contains, ROUGE-L, and the shares of empty and unfinished answers."""
    texts = [answer.text for answer in answers]
    num_exact = sum(map(is_exact, answers, wanted))
    low, high = share_interval(num_exact, len(answers))
    return {
        "exact_match": num_exact / len(answers),
        "exact_match_low": low,
        "exact_match_high": high,
        "contains": sum(map(contains, texts, wanted)) / len(answers),
        "rouge_l": sum(map(rouge_l, texts, wanted)) / len(answers),
        "empty": sum(not text.strip() for text in texts) / len(answers),
        "unfinished": sum(not answer.is_finished for answer in answers) / len(answers),
        "num_answers": len(answers),
    }
