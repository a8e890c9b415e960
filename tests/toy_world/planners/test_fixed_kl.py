"""The planner against observations fixed in advance: its information sets and derivatives."""

import math

import numpy as np
import pytest

from tests.toy_world.planning_problems import (
    missing_after_each_observation,
    newton_by_finite_differences,
    opposite_worlds,
    random_problem,
)
from theory.constraints import fixed_kl_per_observations
from theory.errors import InvalidBudgetError
from toy_world.planners.certificate import check_prices
from toy_world.planners.fixed_kl import ObservationPrices, fixed_kl_optimum
from toy_world.planners.problem import Reading, planning_problem
from toy_world.planners.worst_case import soft_point


def test_newtons_direction_solves_the_equations_of_finite_differences(rng):
    problem = planning_problem(*random_problem(rng), reading=Reading.FIXED)
    adversaries = ObservationPrices(problem, 0.4)
    prices = adversaries.uniform(0.5)
    curvature = rng.random(len(prices[-1])) + 0.5
    point = soft_point(problem, adversaries.of_histories(prices))
    expected = newton_by_finite_differences(
        adversaries, prices, curvature=curvature, tau=1e-3, n_splits=1
    )
    direction = adversaries.newton(point, curvature)(1e-3)
    np.testing.assert_allclose(np.concatenate(direction), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 2), (2, 3, 3)])
def test_a_price_buys_the_kl_given_its_observations(rng, shape):
    """The derivative of L(root) to the price of a sequence is less its KL."""
    n_actions, n_observations, horizon = shape
    tables = random_problem(
        rng, n_actions=n_actions, n_observations=n_observations, horizon=horizon
    )
    problem = planning_problem(*tables, reading=Reading.FIXED)
    adversaries = ObservationPrices(problem, 1.0)
    prices = adversaries.uniform(0.7)
    point = soft_point(problem, adversaries.of_histories(prices))
    kl = fixed_kl_per_observations(point.pi, tables[0])
    for sequence in range(len(prices[-1])):
        values = []
        for change in (1e-5, -1e-5):
            unit = np.zeros_like(prices[-1])
            unit[sequence] = change
            levels = [unit]
            for _ in prices[1:]:
                levels.append(levels[-1].reshape(-1, n_observations).sum(axis=1))
            moved = adversaries.moved(prices, tuple(reversed(levels)), 1.0)
            values.append(soft_point(problem, adversaries.of_histories(moved)).soft_value)
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(-kl[sequence], abs=1e-7)


def test_prices_of_sequences_are_those_of_an_adversary_who_does_not_see_the_actions(rng):
    problem = planning_problem(*random_problem(rng, horizon=4), reading=Reading.FIXED)
    adversaries = ObservationPrices(problem, 1.0)
    drawn = rng.random(8)
    prices = adversaries.moved(adversaries.uniform(0.0), (np.zeros(1), *[drawn] * 3), 1.0)
    assert [len(level) for level in prices] == [1, 2, 4, 8]
    check_prices(problem, adversaries.of_histories(prices), reading=Reading.FIXED)


def test_only_the_observation_after_which_there_is_something_to_gain_has_a_price():
    plan = fixed_kl_optimum(*opposite_worlds(), budget_nats=0.05)
    after = plan.prices[1].reshape(2, 2)
    np.testing.assert_allclose(after[:, 0], plan.multiplier, rtol=1e-6)
    np.testing.assert_allclose(after[:, 1], 0, atol=1e-6)


def test_an_adversary_who_does_not_see_the_first_action_is_played_against_by_a_coin():
    # Each first action costs ln 2 after one of the two observations: half of that on average.
    problem = missing_after_each_observation()
    with pytest.raises(InvalidBudgetError, match=r"more than 0\.\d+, what beta's missing mass"):
        fixed_kl_optimum(*problem, budget_nats=math.log(2) / 2 - 1e-3)
    plan = fixed_kl_optimum(*problem, budget_nats=math.log(2) / 2 + 1e-3)
    assert plan.gap <= 1e-8
