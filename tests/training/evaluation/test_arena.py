import math
import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from training.evaluation.arena import SCALE, Duel, bradley_terry, elo, islands, rank, win_counts, win_rates

MODELS = ("a", "b", "c", "d")


def random_duels(count: int, *, seed: int = 0) -> list[Duel]:
    """Duels of models whose true strengths lie 200 points apart, some of them ties."""
    rng = np.random.default_rng(seed)
    duels = []
    for _ in range(count):
        first, second = rng.choice(4, size=2, replace=False)
        chance = 1 / (1 + 10 ** ((first - second) * -0.5))
        outcome = 0.5 if rng.random() < 0.1 else float(rng.random() < chance)
        duels.append(Duel(MODELS[first], MODELS[second], outcome))
    return duels


@pytest.mark.parametrize("prior", [0.01, 1.0])
def test_bradley_terry_equals_a_logistic_regression(prior: float) -> None:
    duels = random_duels(300)
    rows, labels, weights = [], [], []
    for duel in duels:
        row = np.zeros(4)
        row[MODELS.index(duel.first)], row[MODELS.index(duel.second)] = 1, -1
        for label, weight in ((1, duel.outcome), (0, 1 - duel.outcome)):
            if weight:
                rows.append(row)
                labels.append(label)
                weights.append(weight)
    oracle = LogisticRegression(C=1 / prior, fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    oracle.fit(np.array(rows), labels, sample_weight=weights)
    found = bradley_terry(wins_of(duels), prior=prior)
    assert found == pytest.approx(1000 + SCALE * oracle.coef_[0], abs=1e-4)


def wins_of(duels: list[Duel]) -> np.ndarray:
    pairs = np.array([(MODELS.index(duel.first), MODELS.index(duel.second)) for duel in duels])
    return win_counts(pairs, np.array([duel.outcome for duel in duels]), 4)


def test_three_wins_to_one_are_odds_of_three_to_one() -> None:
    first, second = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), prior=1e-9)
    assert first - second == pytest.approx(400 * math.log10(3), abs=1e-3)
    assert first + second == pytest.approx(2000)


def test_a_model_that_always_wins_has_a_finite_rating() -> None:
    ratings = bradley_terry(np.array([[0.0, 50.0], [0.0, 0.0]]))
    assert np.isfinite(ratings).all()
    assert ratings[0] - ratings[1] > 800


def test_elo_moves_by_what_was_not_expected() -> None:
    pairs = np.array([[0, 1], [0, 1], [1, 0]])
    ratings = elo(pairs, np.array([1.0, 1.0, 0.5]), np.array([[0, 1]]), (2, 2), 32)
    assert ratings[0] == pytest.approx([1016, 984])
    (after,) = elo(pairs, np.array([1.0, 1.0, 0.5]), np.array([[0], [1], [2]]), (1, 2), 32)
    second = 16 + 32 * (1 - 1 / (1 + 10 ** (-32 / 400)))
    third = second - 32 * (1 / (1 + 10 ** (-2 * second / 400)) - 0.5)
    assert after == pytest.approx([1000 + third, 1000 - third])


def test_ratings_find_the_true_order_and_their_intervals_the_true_distance() -> None:
    standings = rank(random_duels(2000), num_resamples=200)
    assert [standing.model for standing in standings] == ["d", "c", "b", "a"]
    for place, standing in enumerate(standings):
        true = 1000 + 200 * (1.5 - place)
        rating = standing.bradley_terry
        assert rating.low < rating.value < rating.high
        # ties count half and draw all ratings a little together
        assert rating.low - 40 < true < rating.high + 40
        assert standing.wins + standing.ties + standing.losses == standing.num_votes
    assert rank(random_duels(200), num_resamples=50) == rank(random_duels(200), num_resamples=50)


def test_more_votes_make_narrower_intervals() -> None:
    few, many = (rank(random_duels(count), num_resamples=200)[0].bradley_terry for count in (100, 1600))
    assert many.high - many.low < (few.high - few.low) / 2.5


def test_win_rates_are_empty_where_models_never_met() -> None:
    rates = win_rates([Duel("a", "b", 1), Duel("b", "a", 0.5)], ["a", "b", "c"])
    assert rates[0, 1] == 0.75
    assert rates[1, 0] == 0.25
    assert np.isnan(rates[2]).all()


def test_models_that_never_met_are_told_apart() -> None:
    duels = [Duel("a", "b", 1), Duel("c", "d", 1)]
    assert islands(duels) == [{"a", "b"}, {"c", "d"}]
    assert islands([*duels, Duel("d", "a", 0)]) == [{"a", "b", "c", "d"}]


def test_drawing_votes_again_takes_no_more_memory_with_every_draw() -> None:
    duels = [Duel("a", "b", float(i % 3 > 0)) for i in range(5000)]
    tracemalloc.start()
    rank(duels, num_resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # all draws at once would be 8 MB
