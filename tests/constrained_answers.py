"""Answers to random schemas from a model of random weights, and what the constraint costs for each token.

    python -m tests.constrained_answers [COUNT] [WIDTH] [CONCURRENCY]

Each schema that can be enforced gets one answer at temperature 1, as many as CONCURRENCY (8) in one batch, from a GPT
of WIDTH (64) with GPT-2's number of tokens. An answer that ends must satisfy its schema, by `jsonschema`; one that is
cut short must be the beginning of one that does: a fresh constraint is led along it and on to an end. Free text of the
same lengths is generated beside it; times are CPU times.
"""

import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import numpy as np
import torch

from model.config import GPTConfig
from model.constraint import ConstraintFactory, check_spec, compile_thread
from model.gpt import GPT
from model.grammar import ConstraintSpec, GrammarError
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer
from service.bench.random_gpt2 import make_tokenizer
from service.engine.engine import Engine
from service.engine.pages import PagePool
from service.engine.request import Failure, NewToken, Request
from service.engine.runner import GPTRunner
from service.engine.scheduler import Scheduler
from tests.random_schemas import random_schema

MAX_TOKENS = 200
PROMPT = [1, 2, 3]


@dataclass
class Answers:
    """What became of some schemas."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    num_tokens: int = 0
    constrained_s: float = 0.0
    free_s: float = 0.0
    compile_s: list[float] = field(default_factory=list)


def main() -> None:
    """Print the counts and the costs."""
    count, width, concurrency = [int(text) for text in sys.argv[1:]] + [500, 64, 8][len(sys.argv) - 1 :]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=50_257, block_size=256, n_layer=12 if width > 64 else 2, n_head=4, n_embd=width)
    answers = ask(GPT(config), make_tokenizer(config.vocab_size), range(count), concurrency=concurrency)
    print(dict(answers.outcomes), f"wrong: {len(answers.wrong)}")
    for schema, text in answers.wrong:
        print(json.dumps(schema), text)
    compile_s = sorted(answers.compile_s)
    print(f"{answers.num_tokens} tokens; milliseconds of CPU for each:")
    print(f"  constrained {1000 * answers.constrained_s / answers.num_tokens:.3f}")
    print(f"  free        {1000 * answers.free_s / answers.num_tokens:.3f}")
    print(f"compiling: median {1000 * compile_s[len(compile_s) // 2]:.2f} ms, most {1000 * compile_s[-1]:.1f} ms")


def ask(model: GPT, tokenizer: Tokenizer, seeds: range, *, concurrency: int, num_pages: int | None = None) -> Answers:
    """Answer a schema for each seed; a seed whose schema cannot be enforced tries others until one can."""
    factory = ConstraintFactory(lambda: tokenizer, vocab_size=model.config.vocab_size, end_ids=[tokenizer.eos_id])
    answers = Answers()
    schemas = [enforceable_schema(seed, factory, answers) for seed in seeds]
    for start in range(0, len(schemas), concurrency):
        batch = schemas[start : start + concurrency]
        engine = make_engine(model, concurrency, num_pages)
        requests = [constrained_request(start + i, spec, factory, tokenizer) for i, (_, spec) in enumerate(batch)]
        started_s = time.process_time()
        failed = run(engine, requests)
        answers.constrained_s += time.process_time() - started_s
        answers.num_tokens += sum(len(request.output_ids) for request in requests)
        started_s = time.process_time()
        run(engine, [free_request(request) for request in requests])
        answers.free_s += time.process_time() - started_s
        for (schema, spec), request in zip(batch, requests, strict=True):
            outcome = judge(schema, spec, request, factory, tokenizer) if request.uid not in failed else "too complex"
            answers.outcomes[outcome] += 1
            if outcome.startswith("wrong"):
                answers.wrong.append((schema, tokenizer.decode(request.output_ids, skip_special=True)))
    return answers


def enforceable_schema(
    seed: int, factory: ConstraintFactory, answers: Answers
) -> tuple[dict[str, Any], ConstraintSpec]:
    """Draw schemas until one can be enforced."""
    draw = random.Random(seed)
    with compile_thread() as thread:
        while True:
            schema = random_schema(draw)
            spec = ConstraintSpec("json_schema", json.dumps(schema))
            try:
                thread.submit(check_spec, spec).result()
                started_s = time.process_time()
                thread.submit(factory.make, spec).result()
                answers.compile_s.append(time.process_time() - started_s)
            except GrammarError:
                answers.outcomes["refused"] += 1
                continue
            return schema, spec


def make_engine(model: GPT, concurrency: int, num_pages: int | None = None) -> Engine:
    """An engine whose cache holds the whole batch, or only so many pages of 16 tokens."""
    block_size = model.config.block_size
    pool = PagePool(num_pages or concurrency * block_size // 16, 16)
    scheduler = Scheduler(pool, block_size=block_size, max_num_seqs=concurrency, max_num_batched_tokens=1024)
    return Engine(scheduler, GPTRunner(model, num_pages=pool.num_pages, page_size=16))


def constrained_request(number: int, spec: ConstraintSpec, factory: ConstraintFactory, tokenizer: Tokenizer) -> Request:
    params = SamplingParams(max_tokens=MAX_TOKENS, seed=number)
    return Request(f"r{number}", PROMPT, params, end_ids=(tokenizer.eos_id,), constraint=factory.make(spec))


def free_request(request: Request) -> Request:
    """As many tokens, of any kind."""
    return Request(request.uid, PROMPT, SamplingParams(max_tokens=len(request.output_ids), seed=request.params.seed))


def run(engine: Engine, requests: list[Request]) -> set[str]:
    """Generate; return who failed."""
    for request in requests:
        engine.add(request)
    failed: set[str] = set()
    while engine.has_work:
        for output in engine.step():
            assert not isinstance(output, Failure) or output.code == "invalid_constraint"
            if isinstance(output, Failure):
                failed.add(output.uid)
            elif isinstance(output, NewToken) and output.finish_reason is not None:
                pass
    return failed


def judge(
    schema: dict[str, Any], spec: ConstraintSpec, request: Request, factory: ConstraintFactory, tokenizer: Tokenizer
) -> str:
    """Say what an answer is worth."""
    ids = request.output_ids
    if ids[-1] == tokenizer.eos_id:
        return "stop" if satisfies(tokenizer.decode(ids[:-1]), schema) else "wrong stop"
    ending = finish(spec, ids, factory, tokenizer)
    if ending is None:
        return "length, unfinished"
    return "length" if satisfies(tokenizer.decode([*ids, *ending]), schema) else "wrong length"


def finish(spec: ConstraintSpec, ids: list[int], factory: ConstraintFactory, tokenizer: Tokenizer) -> list[int] | None:
    """Lead a text to an end by tokens that close something, where there are any."""
    constraint, draw, ending = factory.make(spec), random.Random(0), []
    for token_id in ids:
        assert constraint.accept(token_id)
    for _ in range(300):
        mask = constraint.mask()
        if constraint.failure is not None:
            return None
        allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")).tolist()
        if tokenizer.eos_id in allowed:
            return ending
        closing = [t for t in allowed if tokenizer.token_bytes(t) in (b'"', b"}", b"]")]
        ending.append(draw.choice(closing or allowed))
        constraint.accept(ending[-1])
    return None


def satisfies(text: str, schema: dict[str, Any]) -> bool:
    """Ask the oracle."""
    try:
        validator = jsonschema.Draft202012Validator
        validator(schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


if __name__ == "__main__":
    main()
