"""Ratings out of votes: Elo, which counts them one after another, and Bradley-Terry, which fits all at once.

Both are on Elo's scale: 400 points more are odds of ten to one. Confidence intervals come from votes drawn again with
replacement. Files and reports are others' business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = 400 / np.log(10)
"""Points for each unit of log-odds."""
MEAN_RATING = 1000.0

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Duel:
    """Two models on one question, and how the vote went."""

    first: str
    second: str
    outcome: float
    """1: the first is better, 0: the second, 0.5: neither."""


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating with the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What the votes say of one model."""

    model: str
    num_votes: int
    wins: int
    ties: int
    losses: int
    elo: Rating
    bradley_terry: Rating

    @property
    def win_rate(self) -> float:
        """Share of its votes that it won; a tie counts half."""
        return (self.wins + self.ties / 2) / self.num_votes


def rank(
    duels: Sequence[Duel], *, k_factor: float = 4.0, prior: float = 0.01, num_resamples: int = 1000, seed: int = 0
) -> list[Standing]:
    """Return the models of some duels, best by Bradley-Terry first.

    Args:
        duels: in the order in which they were voted on, which matters to Elo.
        k_factor: Elo's points for a win against all odds.
        prior: of Bradley-Terry; see `bradley_terry`.
        num_resamples: times that all votes are drawn again, for the intervals.
        seed: of those draws.
    """
    models = sorted({name for duel in duels for name in (duel.first, duel.second)})
    number = {model: place for place, model in enumerate(models)}
    pairs = np.array([(number[duel.first], number[duel.second]) for duel in duels])
    outcomes = np.array([duel.outcome for duel in duels])
    rng = np.random.default_rng(seed)
    strengths = bradley_terry(win_counts(pairs, outcomes, len(models)), prior=prior)
    draws = (rng.integers(len(duels), size=len(duels)) for _ in range(num_resamples))
    again = [bradley_terry(win_counts(pairs[draw], outcomes[draw], len(models)), prior=prior) for draw in draws]
    fitted = _ratings(strengths, np.array(again))
    in_order = np.arange(len(duels))[:, None]
    by_chance = (rng.integers(len(duels), size=num_resamples) for _ in duels)
    counted = _ratings(
        elo(pairs, outcomes, in_order, (1, len(models)), k_factor)[0],
        elo(pairs, outcomes, by_chance, (num_resamples, len(models)), k_factor),
    )
    standings = []
    for place, model in enumerate(models):
        own = np.concatenate([outcomes[pairs[:, 0] == place], 1 - outcomes[pairs[:, 1] == place]])
        wins, ties, losses = (int((own == value).sum()) for value in (1.0, 0.5, 0.0))
        standings.append(Standing(model, len(own), wins, ties, losses, counted[place], fitted[place]))
    return sorted(standings, key=lambda standing: -standing.bradley_terry.value)


def _ratings(values: Values, again: Values) -> list[Rating]:
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    return [Rating(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def win_counts(pairs: NDArray[np.int64], outcomes: Values, num_models: int) -> Values:
    """Return how often each model beat each other one (K, K), row over column; a tie is half a win for both."""
    wins = np.zeros((num_models, num_models))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), outcomes)
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), 1 - outcomes)
    return wins


def bradley_terry(wins: Values, *, prior: float = 0.01) -> Values:
    """Return the ratings (K,) under which the wins (K, K) are the most likely (Bradley and Terry 1952).

    Strengths s maximise sum(wins[i, j] * log sigmoid(s[i] - s[j])) - prior / 2 * sum(s ** 2), by Newton's method. The
    prior keeps finite the rating of a model that always wins or loses, and fixes the mean; it costs `prior` times as
    much as a vote would.
    """
    strengths = np.zeros(len(wins))
    games = wins + wins.T
    for _ in range(100):
        chances = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))  # of row over column
        gradient = (wins - games * chances).sum(1) - prior * strengths
        weights = games * chances * (1 - chances)
        hessian = np.diag(weights.sum(1) + prior) - weights
        step = np.linalg.solve(hessian, gradient)
        strengths += step / max(1.0, float(np.abs(step).max()))  # far from the maximum whole steps overshoot
        if np.abs(step).max() < 1e-10:
            break
    ratings: Values = MEAN_RATING + SCALE * (strengths - strengths.mean())
    return ratings


def elo(
    pairs: NDArray[np.int64],
    outcomes: Values,
    orders: Iterable[NDArray[np.int64]],
    shape: tuple[int, int],
    k_factor: float,
) -> Values:
    """Return the ratings (R, K) after counting votes one by one, in several orders side by side (Elo 1978).

    Args:
        pairs: the two models of each vote (N, 2).
        outcomes: of each vote (N,).
        orders: which vote comes next in each of the orders, (R,) at a time.
        shape: number of orders R and of models K.
        k_factor: points for a win against all odds.
    """
    ratings = np.full(shape, MEAN_RATING)
    rows = np.arange(len(ratings))
    for votes in orders:
        first, second = pairs[votes].T
        expected = 1 / (1 + np.exp((ratings[rows, second] - ratings[rows, first]) / SCALE))
        gain = k_factor * (outcomes[votes] - expected)
        ratings[rows, first] += gain
        ratings[rows, second] -= gain
    return ratings


def win_rates(duels: Sequence[Duel], models: Sequence[str]) -> Values:
    """Return how often each model won against each other one (K, K), row over column; NaN where they never met."""
    number = {model: place for place, model in enumerate(models)}
    pairs = np.array([(number[duel.first], number[duel.second]) for duel in duels])
    wins = win_counts(pairs, np.array([duel.outcome for duel in duels]), len(models))
    games = wins + wins.T
    return np.divide(wins, games, out=np.full_like(wins, np.nan), where=games > 0)


def islands(duels: Sequence[Duel]) -> list[set[str]]:
    """Return groups of models that never met a model of another group, so that ratings do not compare across them."""
    groups: list[set[str]] = []
    for duel in duels:
        joined = {duel.first, duel.second}
        apart = [group for group in groups if not group & joined]
        for group in groups:
            if group & joined:
                joined = joined | group
        groups = [*apart, joined]
    return groups
