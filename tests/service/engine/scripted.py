"""A runner without a model: it keeps token ids where keys and values would be, and continues what it reads there.

A row that is handed the wrong pages, or reads what was never written, therefore continues wrongly or not at all.
"""

from collections.abc import Callable, Sequence

from model.sampling_params import SamplingParams
from service.engine.engine import Engine, RowResult
from service.engine.pages import PagePool
from service.engine.request import Logprob, NewToken, Request, StepOutput
from service.engine.scheduler import Scheduler, StepRow

VOCAB_SIZE = 97
BLOCK_SIZE = 64


class ScriptedRunner:
    """Stands in for the model: the next token is a function of all tokens found in the row's pages."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.memory: dict[tuple[int, int], tuple[int, str | None, str]] = {}
        """By page and place: a token, and for which adapter and salt it was computed."""
        self.poisoned: set[str] = set()
        """Requests that make a step raise."""
        self.is_broken = False

    def run(self, rows: Sequence[StepRow]) -> list[RowResult]:
        if self.is_broken or self.poisoned.intersection(row.request.uid for row in rows):
            raise RuntimeError("scripted fault")
        written = [page for row in rows for page in self._written(row)]
        assert len(set(written)) == len(written), "two rows write to one page"
        for row in rows:
            places = range(row.start, row.start + row.length)
            for place, token in zip(places, row.request.token_ids(row.start, row.start + row.length), strict=True):
                self.memory[self._slot(row, place)] = (token, row.request.adapter, row.request.cache_salt)
        return [self._read(row) for row in rows]

    def _read(self, row: StepRow) -> RowResult:
        request = row.request
        found = [self.memory[self._slot(row, place)] for place in range(row.start + row.length)]
        owners = {(adapter, salt) for _, adapter, salt in found}
        assert owners == {(request.adapter, request.cache_salt)}, "what must be kept apart was shared"
        seen = [token for token, _, _ in found]
        result = RowResult()
        if request.params.prompt_logprobs is not None:
            first = max(row.start, len(request.prompt_logprobs) - 1)
            stop = min(row.start + row.length, len(request.prompt_ids) - 1)
            result.prompt_logprobs = [score(request.prompt_ids, place) for place in range(first, stop)]
        if request.pooling == "mean":
            result.pooled = [float(sum(seen[row.start :]))]
        elif request.pooling == "last" and row.is_complete:
            result.pooled = [float(seen[-1])]
        if row.is_complete and request.wants_token(BLOCK_SIZE):
            result.token_id = continue_tokens(seen)
        return result

    def _written(self, row: StepRow) -> list[int]:
        size = self.pool.page_size
        return row.pages[row.start // size : -(-(row.start + row.length) // size)]

    def _slot(self, row: StepRow, place: int) -> tuple[int, int]:
        return row.pages[place // self.pool.page_size], place % self.pool.page_size


def continue_tokens(tokens: Sequence[int]) -> int:
    return sum((i + 1) * token for i, token in enumerate(tokens)) % VOCAB_SIZE


def score(prompt_ids: Sequence[int], place: int) -> Logprob:
    """The made-up score that the tokens up to `place` give to the one that follows."""
    return Logprob(-float(prompt_ids[place + 1] + place), [])


def generate_alone(request: Request) -> list[int]:
    """The oracle: the same rule with nothing around it."""
    outputs: list[int] = []
    while len(outputs) < request.params.max_tokens and len(request.prompt_ids) + len(outputs) < BLOCK_SIZE:
        outputs.append(continue_tokens([*request.prompt_ids, *outputs]))
        if outputs[-1] in request.ending_ids:
            break
    return outputs


def make_engine(
    *,
    num_pages: int = 64,
    page_size: int = 8,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 64,
    prefill_chunk_tokens: int | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> tuple[Engine, ScriptedRunner]:
    pool = PagePool(num_pages, page_size)
    scheduler = Scheduler(
        pool,
        block_size=BLOCK_SIZE,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
    )
    runner = ScriptedRunner(pool)
    return Engine(scheduler, runner, clock), runner


def make_request(uid: str, num_prompt: int = 4, max_tokens: int = 4) -> Request:
    prompt_ids = [(7 * i + len(uid) + sum(map(ord, uid))) % VOCAB_SIZE for i in range(num_prompt)]
    return Request(uid, prompt_ids, SamplingParams(max_tokens=max_tokens))


def run_to_end(engine: Engine, max_steps: int = 10_000) -> list[StepOutput]:
    outputs: list[StepOutput] = []
    for _ in range(max_steps):
        if not engine.has_work:
            return outputs
        outputs += engine.step()
        check(engine)
    raise AssertionError(f"the engine did not come to rest in {max_steps} steps")


def check(engine: Engine) -> None:
    """Assert what holds after every step."""
    scheduler, step = engine.scheduler, engine.last_step
    scheduler.pool.check()
    assert step.num_tokens == sum(row.length for row in step.rows) <= scheduler.max_num_batched_tokens
    assert len(scheduler.running) <= scheduler.max_num_seqs
    present = [*scheduler.running, *scheduler.waiting]
    assert len({request.uid for request in present}) == len(present)
    assert engine.has_work == bool(present)
    for request in scheduler.running:
        owned = len(scheduler.pool.owned_by(request.uid)) * scheduler.pool.page_size
        assert request.num_cached <= owned
    for request in scheduler.waiting:
        assert request.num_cached == 0
        assert scheduler.pool.owned_by(request.uid) == []


def tokens_of(outputs: Sequence[StepOutput], uid: str) -> list[int]:
    return [o.token_id for o in outputs if isinstance(o, NewToken) and o.uid == uid and o.token_id is not None]
