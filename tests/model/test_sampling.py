"""One call samples rows with different settings; each row is as if it were alone."""

import math
from collections import Counter

import pytest
import torch

from model.sampling import SampleRow, edit_logits, keep_top_p, sample, top_logprobs, uniform
from model.sampling_params import SamplingParams

V = 40


class Only:
    """A constraint that allows some tokens."""

    def __init__(self, *token_ids: int) -> None:
        self.token_ids = token_ids

    def mask(self) -> bytes:
        return sum(1 << token_id for token_id in self.token_ids).to_bytes(8, "little")


def row(
    *,
    choice: int = 0,
    prompt: tuple[int, ...] = (),
    output: tuple[int, ...] = (),
    end: tuple[int, ...] = (),
    constraint: Only | None = None,
    **params: object,
) -> SampleRow:
    return SampleRow(SamplingParams(**params), choice, prompt, output, end, constraint)  # type: ignore[arg-type]


def test_zero_temperature_takes_the_lowest_id_of_equal_logits() -> None:
    logits = torch.zeros(1, V)
    logits[0, [7, 9]] = 3.0
    assert sample(logits, [row(temperature=0.0)]).tolist() == [7]


def test_a_row_is_sampled_as_if_alone() -> None:
    torch.manual_seed(0)
    rows = [
        row(temperature=0.0),
        row(seed=3),
        row(seed=3, choice=1, temperature=0.7, top_k=5),
        row(seed=4, top_p=0.6, output=(1, 2, 3)),
        row(seed=5, min_p=0.2, temperature=1.7),
        row(seed=6, repetition_penalty=1.8, prompt=(1, 5), output=(7,), top_p=0.9, top_k=10),
        row(seed=7, presence_penalty=1.0, frequency_penalty=0.5, output=(4, 4, 6)),
        row(seed=8, logit_bias=((3, 9.0), (4, -100.0)), min_tokens=2, end=(3,)),
        row(seed=9, allowed_token_ids=(1, 4, 9), bad_words=((4,), (3, 9)), output=(3,)),
        row(seed=10, constraint=Only(2, 17, 33, 39), temperature=1.5, top_p=0.9),
    ] * 4
    logits = torch.randn(len(rows), V) * 3
    together = sample(logits, rows).tolist()
    alone = [int(sample(logits[i : i + 1], [one])) for i, one in enumerate(rows)]
    assert together == alone


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    expected = torch.softmax(logits[0] / 0.8, dim=-1)
    count = 20_000
    rows = [row(seed=seed, temperature=0.8) for seed in range(count)]
    drawn = Counter(sample(logits.expand(count, -1), rows).tolist())
    for token_id, probability in enumerate(expected.tolist()):
        spread = math.sqrt(probability * (1 - probability) / count)
        assert abs(drawn[token_id] / count - probability) < 5 * spread


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.0}, {0}),
        ({"top_p": 0.45}, {0, 1}),  # the first token's share is 0.4: the second is needed to reach 0.45
        ({"min_p": 0.5}, {0, 1}),
        ({"top_k": 3, "top_p": 0.5}, {0, 1}),  # of the three kept tokens the first has 0.44
        ({"logit_bias": ((0, -100.0), (1, -100.0))}, {2, 3}),
        ({"top_k": -1}, {0, 1, 2, 3}),
    ],
)
def test_filters_keep_the_tokens_they_name(params: dict[str, object], allowed: set[int]) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    rows = [row(seed=seed, **params) for seed in range(400)]
    assert set(sample(logits.expand(400, -1), rows).tolist()) == allowed


def test_nucleus_beyond_the_candidates_is_found_by_a_full_sort() -> None:
    probs = torch.full((2, 5000), 1 / 5000)
    kept = keep_top_p(probs, [0.9, 1.0])
    assert 4499 <= int((kept[0] > 0).sum()) <= 4501
    assert bool((kept[1] > 0).all())


def test_a_nucleus_with_ties_at_its_border_does_not_depend_on_the_rows_beside_it() -> None:
    """Rounded logits have many; a wide row beside them is found in another way."""
    torch.manual_seed(0)
    rounded = torch.randn(5000).bfloat16().float()
    wide = torch.zeros(5000)
    for seed in range(40):
        one = row(seed=seed, top_p=0.3)
        alone = sample(rounded[None], [one])
        together = sample(torch.stack([rounded, wide]), [one, row(seed=seed, top_p=0.99)])
        assert together[0] == alone[0]


def test_of_equally_likely_tokens_the_nucleus_keeps_the_lowest_ids() -> None:
    probs = torch.tensor([[0.1, 0.2, 0.2, 0.3, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
    kept = keep_top_p(probs, [0.6, 0.0]) > 0
    assert kept.tolist() == [[False, True, True, True, False], [True, False, False, False, False]]


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1.0, 2.0])
@pytest.mark.parametrize("penalty", [1e-38, 1e-46, 1e-300])
def test_the_smallest_penalty_gives_a_token_and_keeps_to_a_constraint(penalty: float, temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, V) * 3
    settings = {"repetition_penalty": penalty, "temperature": temperature, "prompt": (1, 2, 3), "output": (4, 5)}
    free, bound = sample(logits, [row(**settings), row(**settings, constraint=Only(9))]).tolist()
    assert free in range(1, 6)
    assert bound == 9


def test_penalties_are_the_published_formulas() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    history = row(prompt=(0,), output=(1, 1, 3), repetition_penalty=2.0, presence_penalty=0.1, frequency_penalty=0.01)
    edited = edit_logits(logits, [history])
    expected = torch.tensor([[1.0, -4.0 - 0.1 - 0.02, 1.0, 0.25 - 0.1 - 0.01]])
    torch.testing.assert_close(edited, expected)


def test_alternatives_do_not_depend_on_how_many_others_ask_for() -> None:
    """Rounded logits have ties, also among the best."""
    torch.manual_seed(0)
    logits = (torch.randn(64, 5000) * 2).bfloat16().float()
    token_ids = torch.zeros(64, dtype=torch.int64)
    few, many = (top_logprobs(logits, token_ids, k)[1] for k in (2, 20))
    assert few.tolist() == many[:, :2].tolist()


def test_end_tokens_are_banned_until_min_tokens() -> None:
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    early = row(temperature=0.0, min_tokens=2, output=(1,), end=(0,))
    late = row(temperature=0.0, min_tokens=2, output=(1, 1), end=(0,))
    assert sample(logits.expand(2, -1), [early, late]).tolist() == [1, 0]


def test_a_row_with_everything_banned_ignores_its_bans() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    banned = row(temperature=0.0, logit_bias=((0, -100.0), (1, -100.0)))
    assert sample(logits, [banned]).tolist() == [1]


def test_only_allowed_tokens_follow_whatever_else_is_asked() -> None:
    logits = torch.zeros(3, V)
    logits[:, 5] = 9.0
    rows = [
        row(allowed_token_ids=(3, 4), logit_bias=((5, 100.0),), temperature=0.0),
        row(allowed_token_ids=(3,), logit_bias=((3, -100.0),), temperature=0.0),
        row(temperature=0.0),
    ]
    assert sample(logits, rows).tolist() == [3, 3, 5]


def test_a_bad_word_is_banned_where_it_would_become_complete() -> None:
    logits = torch.zeros(1, V)
    logits[0, 5], logits[0, 6] = 9.0, 3.0
    words = ((7,), (1, 2, 5))
    for output, expected in (((), 5), ((1, 2), 6), ((2,), 5), ((0, 1, 2), 6), ((1, 2, 0), 5)):
        assert sample(logits, [row(bad_words=words, output=output, temperature=0.0)]).tolist() == [expected]
    assert sample(logits, [row(bad_words=((5,),), temperature=0.0)]).tolist() == [6]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.0},
        {"logit_bias": ((5, -100.0), (39, -100.0), (3, 100.0))},
        {"allowed_token_ids": (1, 2, 3)},
        {"allowed_token_ids": (1, 5), "logit_bias": ((5, -100.0),)},
        {"min_tokens": 9, "end": (5, 39)},
        {"bad_words": ((5,), (39,)), "top_k": 1, "repetition_penalty": 5.0, "prompt": (5, 39)},
    ],
)
def test_what_a_constraint_forbids_is_never_drawn_whatever_else_is_asked(params: dict[str, object]) -> None:
    torch.manual_seed(0)
    rows = [row(**{"seed": seed, "constraint": Only(5, 39), **params}) for seed in range(50)]  # type: ignore[arg-type]
    drawn = set(sample(torch.randn(50, V) * 3 - 5 * torch.eye(V)[5], rows).tolist())
    assert drawn <= {5, 39}
    if params == {"allowed_token_ids": (1, 5), "logit_bias": ((5, -100.0),)}:
        assert drawn == {5}


def test_rows_without_a_constraint_do_not_notice_the_others() -> None:
    logits = torch.randn(3, V)
    edited = edit_logits(logits, [row(), row(constraint=Only(4)), row()])
    assert torch.equal(edited[[0, 2]], logits[[0, 2]])
    assert edited[1].isfinite().nonzero().flatten().tolist() == [4]
    assert edit_logits(logits, [row()] * 3) is logits


def test_sampling_leaves_the_logits_alone() -> None:
    logits = torch.randn(1, V)
    before = logits.clone()
    sample(logits, [row(seed=1, repetition_penalty=1.5, prompt=(1, 2), logit_bias=((3, 5.0),))])
    assert torch.equal(logits, before)


def test_noise_differs_by_seed_choice_and_position_and_fills_the_unit_interval() -> None:
    values = [uniform(seed, choice, position) for seed in range(20) for choice in range(20) for position in range(20)]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 1 for value in values)
    assert abs(sum(values) / len(values) - 0.5) < 5 * math.sqrt(1 / 12 / len(values))
    assert uniform(-1, 0, 0) == uniform(2**64 - 1, 0, 0)  # seeds are 64-bit words


def test_chosen_logprob_has_the_bits_of_its_entry_among_the_top() -> None:
    logits = torch.randn(64, V) * 4
    chosen, ids, best = top_logprobs(logits, logits.argmax(-1), 3)
    assert torch.equal(chosen, best[:, 0])
    assert torch.equal(ids[:, 0], logits.argmax(-1))
    torch.testing.assert_close(chosen, torch.log_softmax(logits, -1).amax(-1))
