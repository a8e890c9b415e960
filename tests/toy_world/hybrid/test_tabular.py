"""The tabular oracle: means, a bonus, and the best of all policies for either attitude."""

import math

import numpy as np
import pytest

from tests.toy_world.hybrid.brute_force import every_policy, small_mdp
from theory.errors import InvalidArgumentError
from toy_world.hybrid.concentrability import tabular_step_levels, uncertainty_level
from toy_world.hybrid.mdp import Data, demonstrations, no_data, occupancies, one_hot
from toy_world.hybrid.oracle import Attitude
from toy_world.hybrid.tabular import TabularOracle


def seen(mdp, *, n_episodes=20):
    behaviour = np.full((mdp.horizon, mdp.n_states, mdp.n_actions), 1 / mdp.n_actions)
    return demonstrations(mdp, behaviour, n_episodes, n_runs=1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("attitude", Attitude)
@pytest.mark.parametrize("seed", range(4))
def test_the_best_policy_is_the_best_of_all(attitude, seed):
    mdp = small_mdp(seed)
    estimate = TabularOracle.of(mdp, n_episodes=20, delta=0.1, scale=0.3)(seen(mdp))
    scores = [
        float((estimate.values(p[None]) + attitude.value * estimate.uncertainties(p[None]))[0])
        for p in every_policy(mdp)
    ]
    best = estimate.best(attitude)
    assert best.values[0] == pytest.approx(max(scores), rel=1e-12)
    assert abs(best.gap) < 1e-12


def test_without_data_everything_is_uncertain_by_all_that_is_left_to_gain():
    mdp = small_mdp(0)
    estimate = TabularOracle.of(mdp, n_episodes=1, delta=0.1)(no_data(mdp, 1))
    policy = every_policy(mdp)[:1]
    assert estimate.values(policy) == [0.0]
    assert estimate.uncertainties(policy) == [mdp.horizon]


def test_estimates_are_means_of_what_was_seen():
    mdp = small_mdp(1, horizon=1)
    data = Data(
        visits=np.array([[[[3, 1], [0, 2]], [[1, 0], [0, 0]]]]),
        rewards=np.array([[[1.0, 2.0], [1.0, 0.0]]]),
    )
    estimate = TabularOracle.of(mdp, n_episodes=10, delta=0.1)(data)
    policy = np.array([[[0, 1]]])  # a reward in 1 of 4 in state 0; state 1 was never left so
    assert estimate.values(policy)[0] == pytest.approx(mdp.initial[0] / 4, rel=1e-15)


def test_the_radius_is_hoeffdings_for_as_many_events_as_there_are():
    mdp = small_mdp(0)
    oracle = TabularOracle.of(mdp, n_episodes=7, delta=0.1)
    events = 2**2 * (2 * 2) * (7 * 3)
    radius = float(oracle.radius(np.array(1000)))
    assert events * math.exp(-2 * 1000 * radius**2) == pytest.approx(0.1, rel=1e-9)
    assert oracle.radius(np.array([0, 1])).tolist() == [1.0, 1.0]


def test_data_in_proportion_to_occupancies_are_as_uncertain_as_the_level_says():
    """`sqrt(N) U_hat^pi` is the uncertainty level times a constant that policies share."""
    mdp = small_mdp(2)
    behaviour = np.full((3, 2, 2), 0.5)
    met = occupancies(mdp, behaviour).sum(axis=0)
    many = 1e12
    data = Data(
        visits=np.round(many * met[..., None] * mdp.probabilities).astype(np.int64)[None],
        rewards=(many * met * mdp.rewards)[None],
    )
    oracle = TabularOracle.of(mdp, n_episodes=1, delta=0.1)
    levels = tabular_step_levels(mdp, behaviour)
    for policy in every_policy(mdp)[::5]:
        computed = math.sqrt(many) * float(oracle(data).uncertainties(policy[None])[0])
        level = uncertainty_level(mdp, levels, one_hot(policy, 2))
        assert computed == pytest.approx(math.sqrt(oracle.log_events / 2) * level, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delta": 1.0}, r"delta must lie in \(0, 1\), got 1.0"),
        ({"delta": 0.1, "scale": 0.0}, "scale must be > 0, got 0.0"),
    ],
)
def test_what_is_no_oracle_is_refused(changes, words):
    with pytest.raises(InvalidArgumentError, match=words):
        TabularOracle.of(small_mdp(0), n_episodes=5, **changes)
