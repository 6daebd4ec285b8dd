"""Score the answers that an assistant gives against the wanted ones: exact match, contains, ROUGE-L."""

import re
from collections.abc import Collection, Sequence

from model.chat import ChatTemplate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.instruction import Conversation
from training.decode import greedy_answers
from training.evaluation.intervals import share_interval

UNFINISHED = "\u2026"
"""Marks an answer that did not come to its end, so that it matches nothing by chance."""


def answer(
    model: GPT,
    conversations: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    end_ids: Collection[int],
    max_tokens: int = 64,
) -> list[str]:
    """Answer each conversation's last question greedily; the answer it ends with is not shown to the model.

    An answer that does not come to its end is marked with a trailing `UNFINISHED`.
    """
    prompts = [template.encode(messages[:-1]) for messages in conversations]
    found = greedy_answers(model, prompts, end_ids=end_ids, max_tokens=max_tokens)
    texts = []
    for ids in found:
        has_ended = bool(ids) and ids[-1] in end_ids
        texts.append(tokenizer.decode(ids, skip_special=True) + ("" if has_ended else UNFINISHED))
    return texts


def exact_match(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of answers that equal the wanted text, white space at the ends aside."""
    return sum(a.strip() == w.strip() for a, w in zip(answers, wanted, strict=True)) / len(answers)


def contains(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of answers that say the wanted text somewhere, in whole words; letter case and space aside."""
    return sum(_says(a, w) for a, w in zip(answers, wanted, strict=True)) / len(answers)


def _says(answer: str, wanted: str) -> bool:
    text, sought = (" ".join(part.casefold().split()) for part in (answer, wanted))
    return re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", text) is not None


def rouge_l(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the mean ROUGE-L F-measure, 0 to 1 (Lin 2004, equation 4 with beta 1).

    Words are runs of letters and digits of any script, in lower case, not stemmed; where a text has none, its score
    is 0.
    """
    return sum(_rouge_l(a, w) for a, w in zip(answers, wanted, strict=True)) / len(answers)


def _rouge_l(answer: str, wanted: str) -> float:
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


def answer_metrics(answers: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Return exact match with its 95% interval, contains, ROUGE-L, and the shares of empty and unfinished answers."""
    share = exact_match(answers, wanted)
    low, high = share_interval(round(share * len(answers)), len(answers))
    return {
        "exact_match": share,
        "exact_match_low": low,
        "exact_match_high": high,
        "contains": contains(answers, wanted),
        "rouge_l": rouge_l(answers, wanted),
        "empty": sum(not text.strip() for text in answers) / len(answers),
        "unfinished": sum(text.endswith(UNFINISHED) for text in answers) / len(answers),
        "num_answers": len(answers),
    }
