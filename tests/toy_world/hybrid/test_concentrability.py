"""Concentrability against closed forms, and the farthest policy against a linear program."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from tests.toy_world.hybrid.brute_force import every_policy, small_mdp
from theory.errors import InvalidArgumentError
from toy_world.hybrid.concentrability import (
    concentrability,
    farthest_level,
    fitted_constant,
    linear_step_levels,
    regret_rate,
    sub_optimality_rate,
    tabular_step_levels,
    uncertainty_level,
)
from toy_world.hybrid.mdp import FiniteMDP, one_hot

EVEN = np.full((3, 2, 2), 0.5)


def two_arms(means=(0.2, 0.7)):
    return FiniteMDP(
        rewards=np.array([means]),
        successors=np.zeros((1, 2, 1), dtype=np.int64),
        probabilities=np.ones((1, 2, 1)),
        initial=np.ones(1),
        horizon=1,
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_two_arms_have_a_closed_form(share):
    mdp = two_arms()
    behaviour = np.array([[[1 - share, share]]])
    found = concentrability(
        mdp,
        tabular_step_levels(mdp, behaviour),
        policy=one_hot(np.array([[1]]), 2),
        behaviour=behaviour,
    )
    own = math.sqrt(share) + math.sqrt(1 - share)
    assert found == pytest.approx((1 / math.sqrt(share) / own) ** 2, rel=1e-12)


def test_data_reach_their_own_policy_by_definition_and_never_where_it_does_not_go():
    mdp = small_mdp(0)
    levels = tabular_step_levels(mdp, EVEN)
    assert concentrability(mdp, levels, policy=EVEN, behaviour=EVEN) == 1
    only = one_hot(np.zeros((3, 2), dtype=np.int64), 2)
    others = one_hot(np.ones((3, 2), dtype=np.int64), 2)
    levels = tabular_step_levels(mdp, only)
    assert concentrability(mdp, levels, policy=only, behaviour=only) == 1
    assert concentrability(mdp, levels, policy=others, behaviour=only) == math.inf


def test_linear_levels_of_indicator_features_are_the_tabular_ones():
    mdp = two_arms()
    behaviour = np.array([[[0.3, 0.7]]])
    found = linear_step_levels(mdp, np.eye(2)[None], behaviour)
    np.testing.assert_allclose(found, tabular_step_levels(mdp, behaviour), rtol=1e-12)


def test_linear_levels_are_infinite_outside_the_span_of_what_was_seen():
    mdp = two_arms()
    only_first = np.array([[[1.0, 0.0]]])
    found = linear_step_levels(mdp, np.eye(2)[None], only_first)
    assert found.tolist() == [[1.0, math.inf]]
    along = np.array([[[1.0, 0.0], [2.0, 0.0]]])
    assert linear_step_levels(mdp, along, only_first).tolist() == [[1.0, 2.0]]


def by_linear_program(mdp, levels, least_gap):
    """The greatest level over occupancies d_h(s, a), with the process's flow as constraints."""
    H, S, A = mdp.horizon, mdp.n_states, mdp.n_actions
    left = np.arange(H, 0, -1)[:, None, None]
    flow, right = np.zeros((H * S, H * S * A)), np.zeros(H * S)
    index = np.arange(H * S * A).reshape(H, S, A)
    for h in range(H):
        for s in range(S):
            flow[h * S + s, index[h, s]] = 1
            if h == 0:
                right[s] = mdp.initial[s]
                continue
            for t in range(S):
                for a in range(A):
                    for k, after in enumerate(mdp.successors[t, a]):
                        if after == s:
                            flow[h * S + s, index[h - 1, t, a]] -= mdp.probabilities[t, a, k]
    best = mdp.model(1).optimum().values[0]
    found = linprog(
        -(left * levels).reshape(-1),
        A_ub=np.tile(mdp.rewards, (H, 1, 1)).reshape(1, -1),
        b_ub=[best - least_gap],
        A_eq=flow,
        b_eq=right,
    )
    return -found.fun


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("least_gap", [0.0, 0.05, 0.3])
def test_the_farthest_policy_is_that_of_a_linear_program(seed, least_gap):
    mdp = small_mdp(seed)
    levels = tabular_step_levels(mdp, EVEN)
    found = farthest_level(mdp, levels, least_gap=least_gap)
    assert found.level == pytest.approx(by_linear_program(mdp, levels, least_gap), rel=1e-7)
    assert found.bound == pytest.approx(found.level, rel=1e-9)


def test_no_bad_enough_deterministic_policy_is_farther_than_the_bound():
    mdp = small_mdp(1)
    levels = tabular_step_levels(mdp, EVEN)
    policies = every_policy(mdp)
    gaps = mdp.model(1).optimum().values - mdp.model(len(policies)).values(policies)
    bound = farthest_level(mdp, levels, least_gap=0.2).bound
    bad = [uncertainty_level(mdp, levels, one_hot(p, 2)) for p in policies[gaps >= 0.2]]
    assert 0 < max(bad) <= bound * (1 + 1e-12)


def test_where_nobody_is_so_bad_there_is_no_farthest_and_where_nothing_was_seen_it_is_infinite():
    mdp = small_mdp(2)
    assert farthest_level(mdp, tabular_step_levels(mdp, EVEN), least_gap=3.0) is None
    only = one_hot(np.zeros((3, 2), dtype=np.int64), 2)
    assert farthest_level(mdp, tabular_step_levels(mdp, only), least_gap=0.01).bound == math.inf
    with pytest.raises(InvalidArgumentError, match="least_gap must be >= 0, got -1"):
        farthest_level(mdp, tabular_step_levels(mdp, EVEN), least_gap=-1)


def test_rates_are_those_of_the_episodes_that_tell():
    sizes = {"n_offline": 12, "concentrability": 4.0}
    assert sub_optimality_rate(n_online=6, **sizes) == 1 / 3
    assert regret_rate(n_online=6, **sizes) == 2.0
    assert regret_rate(n_online=0, **sizes) == 0.0
    assert sub_optimality_rate(n_online=0, n_offline=5, concentrability=math.inf) == math.inf


def test_the_fitted_constant_leaves_a_residual_that_is_orthogonal_to_the_rates():
    rates, measured = np.array([1.0, 2.0, 4.0]), np.array([3.0, 3.0, 9.0])
    constant = fitted_constant(measured, rates)
    assert (measured - constant * rates) @ rates == pytest.approx(0, abs=1e-12)
