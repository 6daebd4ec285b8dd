"""Score the answers that an assistant gives."""

from collections.abc import Collection, Sequence

from model.chat import ChatTemplate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from training.data.instruction import Conversation
from training.decode import greedy_answers


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

    An answer that does not come to its end is marked with a trailing U+2026, so that it matches nothing by chance.
    """
    prompts = [template.encode(messages[:-1]) for messages in conversations]
    found = greedy_answers(model, prompts, end_ids=end_ids, max_tokens=max_tokens)
    texts = []
    for ids in found:
        has_ended = bool(ids) and ids[-1] in end_ids
        texts.append(tokenizer.decode(ids, skip_special=True) + ("" if has_ended else "\u2026"))
    return texts


def exact_match(answers: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of answers that equal the wanted text, white space at the ends aside."""
    return sum(a.strip() == w.strip() for a, w in zip(answers, wanted, strict=True)) / len(answers)
