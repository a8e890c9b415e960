"""The linear oracle against least squares, closed forms, and every policy."""

import math
from itertools import product

import numpy as np
import pytest

from theory.errors import InvalidArgumentError, InvalidShapeError
from toy_world.hybrid.linear_bandit import LinearOracle
from toy_world.hybrid.mdp import Data
from toy_world.hybrid.oracle import Attitude

FEATURES = np.random.default_rng(0).normal(size=(3, 4, 2))
CONTEXTS = np.array([0.5, 0.25, 0.25])


def data_of(counts, rewards):
    return Data(visits=np.array(counts)[..., None], rewards=np.array(rewards, dtype=float))


def oracle(**changes):
    return LinearOracle(
        **(
            {"features": FEATURES, "contexts": CONTEXTS, "longest": 1.0, "ridge": 0.3, "delta": 0.1}
            | changes
        )
    )


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 5, size=(2, 3, 4))
    return data_of(counts, rng.binomial(counts, 0.6))


def test_means_are_those_of_least_squares_with_ridge_rows(data):
    estimate = oracle()(data)
    for run in range(2):
        rows, targets = [], []
        for s, a in product(range(3), range(4)):
            n, total = data.counts[run, s, a], data.rewards[run, s, a]
            rows += [FEATURES[s, a]] * n
            targets += [total / n] * n
        rows += list(math.sqrt(0.3) * np.eye(2))
        theta, *_ = np.linalg.lstsq(np.array(rows), np.array([*targets, 0, 0]), rcond=None)
        np.testing.assert_allclose(estimate.means[run], FEATURES @ theta, rtol=1e-10)


def test_one_dimension_is_a_mean_and_its_width_has_a_closed_form():
    (n, total), ridge, delta, longest = (9, 4.0), 0.5, 0.1, 2.0
    estimate = oracle(
        features=np.ones((1, 1, 1)), contexts=np.ones(1), ridge=ridge, longest=longest
    )(data_of([[[n]]], [[[total]]]))
    policy = np.zeros((1, 1, 1), dtype=np.int64)
    assert estimate.values(policy)[0] == pytest.approx(total / (n + ridge), rel=1e-12)
    beta = math.sqrt(ridge) * longest + 0.5 * math.sqrt(
        2 * math.log(1 / delta) + math.log((n + ridge) / ridge)
    )
    width = beta / math.sqrt(n + ridge)
    assert estimate.uncertainties(policy)[0] == pytest.approx(width, rel=1e-12)


@pytest.mark.parametrize("attitude", Attitude)
def test_the_best_policy_is_the_best_of_all(attitude, data):
    estimate = oracle(scale=0.5)(data)
    policies = [np.array([[p]] * 2) for p in product(range(4), repeat=3)]
    scores = np.array(
        [estimate.values(p) + attitude.value * estimate.uncertainties(p) for p in policies]
    )
    best = estimate.best(attitude)
    np.testing.assert_allclose(best.values, scores.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(best.bounds, best.values, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"contexts": np.ones(2) / 2}, InvalidShapeError, r"with S = 2 contexts, got \(3, 4, 2\)"),
        ({"delta": 0.0}, InvalidArgumentError, r"delta must lie in \(0, 1\), got 0.0"),
        ({"ridge": 0.0}, InvalidArgumentError, "ridge must be > 0, got 0.0"),
    ],
)
def test_what_is_no_oracle_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        oracle(**changes)
