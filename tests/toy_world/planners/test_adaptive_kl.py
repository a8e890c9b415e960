"""The planner against an observing adversary: its information sets and derivatives."""

import math

import numpy as np
import pytest

from tests.toy_world.planning_problems import (
    missing_after_each_observation,
    newton_by_finite_differences,
    random_problem,
)
from theory.errors import InvalidBudgetError
from toy_world.planners.adaptive_kl import HistoryPrices, adaptive_kl_optimum
from toy_world.planners.certificate import check_prices
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Reading, planning_problem
from toy_world.planners.worst_case import soft_point


def test_newtons_direction_solves_the_equations_of_finite_differences(rng):
    problem = planning_problem(*random_problem(rng), reading=Reading.ADAPTIVE)
    adversaries = HistoryPrices(problem, 0.4)
    prices = adversaries.uniform(0.5)
    curvature = rng.random(len(prices[-1])) + 0.5
    point = soft_point(problem, adversaries.of_histories(prices))
    expected = newton_by_finite_differences(
        adversaries, prices, curvature=curvature, tau=1e-3, n_splits=2
    )
    direction = adversaries.newton(point, curvature)(1e-3)
    np.testing.assert_allclose(np.concatenate(direction), expected, rtol=1e-4, atol=1e-6)


def test_moved_prices_are_still_those_of_an_adversary(rng):
    problem = planning_problem(*random_problem(rng, horizon=4), reading=Reading.ADAPTIVE)
    adversaries = HistoryPrices(problem, 1.0)
    prices = adversaries.uniform(0.5)
    check_prices(problem, prices, reading=Reading.ADAPTIVE)
    point = soft_point(problem, prices)
    direction = adversaries.newton(point, np.ones(len(prices[-1])))(1e-2)
    for _ in range(20):
        prices = adversaries.moved(prices, direction, 1e-3)
    check_prices(problem, prices, reading=Reading.ADAPTIVE)
    change = prices[0] - 0.5
    np.testing.assert_allclose(change, 0.02 * direction[0], atol=1e-12)


def test_the_adaptive_adversary_is_the_strictest(rng):
    for _ in range(5):
        problem = random_problem(rng)
        fixed = fixed_kl_optimum(*problem, budget_nats=0.2)
        adaptive = adaptive_kl_optimum(*problem, budget_nats=0.2)
        expected = expected_kl_optimum(*problem, budget_nats=0.2)
        assert adaptive.value <= min(fixed.value, expected.value) + 2e-10


def test_an_adversary_who_sees_the_first_action_makes_every_policy_pay():
    # After action 0 it shows observation 0, after action 1 observation 1: ln 2 either way.
    problem = missing_after_each_observation()
    with pytest.raises(InvalidBudgetError, match=r"at least 0\.6931471"):
        adaptive_kl_optimum(*problem, budget_nats=math.log(2) - 1e-6)
    only = adaptive_kl_optimum(*problem, budget_nats=math.log(2))
    assert only.multiplier == math.inf
    np.testing.assert_allclose(only.pi[0], [[0.5, 0.5]])
