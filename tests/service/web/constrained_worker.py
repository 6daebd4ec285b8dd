"""A worker without a model that obeys constraints: it takes any of the tokens that may follow, by seed."""

import random
from collections.abc import Iterable

from model.constraint import ConstraintFactory
from model.tokenizer import Tokenizer
from service.host.messages import Admitted, Event, Failed, Generate, Token
from tests.service.web.scripted_worker import Script


def obeys(tokenizer: Tokenizer, *, hurry: int = 8) -> Script:
    """Script: write random tokens under the constraint, and none that can be avoided once `hurry` of them are there."""
    factory = ConstraintFactory(lambda: tokenizer, vocab_size=tokenizer.vocab_size, end_ids=[tokenizer.eos_id])

    def script(message: Generate) -> Iterable[Event]:
        assert message.constraint is not None
        constraint = factory.make(message.constraint)
        draw = random.Random(f"{message.params.seed} {message.choice}")
        yield Admitted(message.uid, 0.001, 0)
        for position in range(message.params.max_tokens):
            mask = constraint.mask()
            allowed = [t for t in range(tokenizer.vocab_size) if mask[t // 8] >> t % 8 & 1]
            ends = [t for t in allowed if t == tokenizer.eos_id or tokenizer.token_bytes(t) in (b'"', b"}", b"]")]
            token_id = draw.choice((ends if position >= hurry else ()) or allowed)
            if not constraint.accept(token_id):
                yield Failed(message.uid, "invalid_constraint")
                return
            is_last = position + 1 == message.params.max_tokens
            finish = "stop" if token_id == tokenizer.eos_id else "length" if is_last else None
            yield Token(message.uid, token_id, finish_reason=finish)
            if finish is not None:
                return

    return script
