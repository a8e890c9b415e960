"""The TVD planner against closed forms, enumerated adversaries and another solver."""

import math
from fractions import Fraction
from itertools import product

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from tests.toy_world.planning_problems import random_problem
from theory.constraints import adaptive_tvd, expected_tvd, fixed_tvd
from theory.errors import InvalidBudgetError
from theory.process import action_law, values
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum

F = Fraction
each_reading = pytest.mark.parametrize("reading", Reading, ids=lambda reading: reading.name)


def attained(reading, pi, beta, nu):
    match reading:
        case Reading.EXPECTED:
            return expected_tvd(pi, beta, nu)
        case Reading.FIXED:
            return fixed_tvd(pi, beta)
        case Reading.ADAPTIVE:
            return adaptive_tvd(pi, beta)


@st.composite
def exact_problems(draw, *, max_horizon=2):
    tree = draw(trees(max_horizon=max_horizon))
    n = tree.n_histories(tree.horizon)
    utility = draw(st.lists(st.integers(0, 4).map(lambda k: F(k, 4)), min_size=n, max_size=n))
    return (
        draw(policy_tables(tree)),
        draw(environment_tables(tree)),
        np.array(utility, dtype=object),
    )


def moved_mass_value(base, earned, budget):
    """Without observations: take `budget` from the worst sequences and give it to the best."""
    value = sum(p * u for p, u in zip(base, earned, strict=True))
    left = budget
    for u, p in sorted(zip(earned, base, strict=True)):
        taken = min(left, p)
        value += taken * (max(earned) - u)
        left -= taken
    return value


@each_reading
@given(data=st.data(), budget=st.fractions(0, 1, max_denominator=12))
def test_without_observations_mass_moves_from_the_worst_sequences_to_the_best(
    reading, data, budget
):
    tree = data.draw(trees(max_horizon=3).filter(lambda tree: tree.n_observations == 1))
    beta = data.draw(policy_tables(tree))
    nu = tuple(np.full((level.shape[0], tree.n_actions, 1), F(1)) for level in beta)
    grades = st.integers(0, 4).map(lambda k: F(k, 4))
    n = tree.n_histories(tree.horizon)
    utility = np.array(data.draw(st.lists(grades, min_size=n, max_size=n)), dtype=object)
    plan = tvd_optimum(beta, nu, utility, budget=budget, reading=reading)
    base = action_law(beta, n_observations=1)
    assert plan.value == plan.bound == moved_mass_value(list(base), list(utility), budget)


@each_reading
@given(problem=exact_problems(), budget=st.fractions(0, 1, max_denominator=10))
def test_exact_plans_have_no_gap_and_meet_the_constraint_exactly(reading, problem, budget):
    beta, nu, utility = problem
    plan = tvd_optimum(*problem, budget=budget, reading=reading)
    assert isinstance(plan.value, Fraction)
    assert plan.gap == 0
    assert plan.value == values(plan.pi, nu, utility)[0][0]
    assert plan.attained == attained(reading, plan.pi, beta, nu) <= budget


@each_reading
@pytest.mark.parametrize("horizon", [2, 3, 5])
def test_float_plans_are_certified_to_rounding(rng, reading, horizon):
    beta, nu, utility = random_problem(rng, horizon=horizon)
    plan = tvd_optimum(beta, nu, utility, budget=0.15, reading=reading)
    assert plan.attained == pytest.approx(attained(reading, plan.pi, beta, nu), abs=1e-15)
    assert plan.attained <= 0.15 + 1e-9
    assert plan.value == pytest.approx(float(values(plan.pi, nu, utility)[0][0]), abs=1e-14)
    assert abs(plan.gap) <= 1e-9


def leaf_distances(beta, nu, reading):
    """For each adversary of the reading the weight of |x - b| at every last action."""
    n_actions, n_observations = nu[0].shape[1:]
    horizon = len(beta)
    n_leaves = beta[-1].size
    steps = list(product(range(n_actions), range(n_observations)))
    leaves = [
        (history, action)
        for history in product(steps, repeat=horizon - 1)
        for action in range(n_actions)
    ]
    if reading is Reading.EXPECTED:
        weights = np.ones(1)
        for observations in nu[:-1]:
            weights = (weights[:, None, None] * observations).reshape(-1)
        yield np.repeat(weights, n_actions)
        return
    situations = [
        actions for t in range(1, horizon) for actions in product(range(n_actions), repeat=t)
    ]
    if reading is Reading.FIXED:
        strategies = (
            {actions: sequence[len(actions) - 1] for actions in situations}
            for sequence in product(range(n_observations), repeat=horizon - 1)
        )
    else:
        strategies = (
            dict(zip(situations, chosen, strict=True))
            for chosen in product(range(n_observations), repeat=len(situations))
        )
    for strategy in strategies:
        weights = np.zeros(n_leaves)
        for i, (history, _) in enumerate(leaves):
            actions = tuple(a for a, _ in history)
            weights[i] = all(strategy[actions[: t + 1]] == o for t, (_, o) in enumerate(history))
        yield weights


@each_reading
@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 2, 2), (2, 2, 3)])
def test_values_are_those_of_a_convex_solver_that_lists_every_adversary(rng, reading, shape):
    n_actions, n_observations, horizon = shape
    beta, nu, utility = random_problem(
        rng, n_actions=n_actions, n_observations=n_observations, horizon=horizon
    )
    flows, constraints, parent = [], [], np.ones(1)
    for level in beta:
        flow = cp.Variable(level.shape, nonneg=True)
        constraints.append(cp.sum(flow, axis=1) == parent)
        repeat = np.kron(np.eye(level.size), np.ones((n_observations, 1)))
        parent = repeat @ cp.reshape(flow, (level.size,), order="C")
        flows.append(flow)
    distance = cp.abs(
        cp.reshape(flows[-1], (beta[-1].size,), order="C")
        - action_law(beta, n_observations=n_observations)
    )
    constraints += [w @ distance / 2 <= 0.1 for w in leaf_distances(beta, nu, reading)]
    weights = np.ones(1)
    for observations in nu:
        weights = (weights[:, None, None] * observations).reshape(-1)
    gains = (weights * utility).reshape(-1, n_actions, n_observations).sum(axis=-1)
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(gains, flows[-1]))), constraints)
    problem.solve(solver=cp.CLARABEL)
    plan = tvd_optimum(beta, nu, utility, budget=0.1, reading=reading)
    assert plan.value == pytest.approx(float(problem.value), abs=1e-7)


@each_reading
def test_the_multiplier_is_the_slope_of_the_value(rng, reading):
    problem = random_problem(rng)
    low, middle, high = (
        tvd_optimum(*problem, budget=c, reading=reading) for c in (0.1, 0.101, 0.102)
    )
    assert (high.value - middle.value) / 0.001 <= middle.multiplier + 1e-9
    assert middle.multiplier <= (middle.value - low.value) / 0.001 + 1e-9


@each_reading
def test_with_a_perfect_base_policy_the_agent_still_takes_the_bad_action_with_probability_c(
    reading,
):
    beta = (np.array([[F(1), F(0)]], dtype=object),)
    nu = (np.full((1, 2, 2), F(1, 2)),)
    utility = np.array([F(0), F(0), F(1), F(1)], dtype=object)
    plan = tvd_optimum(beta, nu, utility, budget=F(1, 7), reading=reading)
    assert plan.pi[0][0, 1] == plan.value == F(1, 7)


@each_reading
def test_missing_mass_uses_up_the_budget(reading):
    # A full pi is at least 1/8 from (1/2, 1/4).
    beta = (np.array([[F(1, 2), F(1, 4)]], dtype=object),)
    nu = (np.full((1, 2, 1), F(1)),)
    utility = np.array([F(0), F(1)], dtype=object)
    with pytest.raises(InvalidBudgetError, match="beta misses too much mass"):
        tvd_optimum(beta, nu, utility, budget=F(1, 10), reading=reading)
    plan = tvd_optimum(beta, nu, utility, budget=F(1, 8), reading=reading)
    assert (plan.value, plan.attained) == (F(1, 2), F(1, 8))


@each_reading
@pytest.mark.parametrize("budget", [-0.1, math.nan])
def test_a_budget_must_be_a_number_from_0(rng, reading, budget):
    with pytest.raises(InvalidBudgetError, match=f"budget must be >= 0, got {budget}"):
        tvd_optimum(*random_problem(rng), budget=budget, reading=reading)


@pytest.mark.parametrize("budget", [Fraction(1, 10**9), Fraction(1, 10**12), Fraction(1, 10**30)])
@pytest.mark.parametrize("reading", Reading)
def test_tiny_rational_budgets_are_solved_exactly(budget, reading):
    """One step moves the budget from the worst action that beta takes to the best of all."""
    rng = np.random.default_rng(7)
    for n_actions in (2, 3, 4, 4, 4):
        weights = rng.integers(0, 9, n_actions)
        weights[0] += 1
        beta = np.array([[Fraction(int(w), int(weights.sum())) for w in weights]])
        utility = np.array([Fraction(int(k), 9) for k in rng.integers(0, 10, n_actions)])
        nu = np.full((1, n_actions, 1), Fraction(1))
        plan = tvd_optimum((beta,), (nu,), utility, budget=budget, reading=reading)
        worst = min(u for b, u in zip(beta[0], utility, strict=True) if b > 0)
        expected = (beta[0] * utility).sum() + budget * (max(utility) - worst)
        assert plan.value == plan.bound == expected
        assert plan.attained <= budget


@pytest.mark.parametrize("reading", Reading)
def test_tiny_rational_budgets_of_two_steps_are_solved_exactly(reading):
    rng = np.random.default_rng(11)

    def rows(*shape):
        weights = rng.integers(0, 6, shape)
        weights[..., 0] += 1
        totals = weights.sum(axis=-1, keepdims=True)
        return np.vectorize(lambda w, n: Fraction(int(w), int(n)), otypes=[object])(weights, totals)

    for _ in range(12):
        beta, nu = (rows(1, 2), rows(4, 2)), (rows(1, 2, 2), rows(4, 2, 2))
        utility = np.array([Fraction(int(k), 6) for k in rng.integers(0, 7, 16)])
        plan = tvd_optimum(beta, nu, utility, budget=Fraction(1, 10**12), reading=reading)
        assert plan.value == plan.bound
        assert plan.attained <= Fraction(1, 10**12)


@pytest.mark.parametrize("off", [Fraction(-1, 10**12), Fraction(1, 10**12)])
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1, 10**12)])
@pytest.mark.parametrize("reading", Reading)
def test_rational_data_too_close_for_floats_are_solved_exactly(reading, scale, off):
    """Budgets at which beta's worst action is just not used up, and utilities that hardly differ.

    The budget moves what beta gives the worst actions, one after the other, to the best of all.
    """
    rng = np.random.default_rng(3)
    for n_actions in (2, 3, 4, 4):
        weights = rng.integers(1, 9, n_actions)
        weights[-1] += 2  # so that no action has all
        beta = np.array([[Fraction(int(w), int(weights.sum())) for w in weights]])
        utility = Fraction(1, 2) + scale * np.array([Fraction(k, 9) for k in range(n_actions)])
        nu = np.full((1, n_actions, 1), Fraction(1))
        budget = beta[0, 0] + off
        plan = tvd_optimum((beta,), (nu,), utility, budget=budget, reading=reading)
        expected, left = (beta[0] * utility).sum(), budget
        for b, u in zip(beta[0], utility, strict=True):
            moved = min(b, left)
            expected, left = expected + moved * (utility[-1] - u), left - moved
        assert plan.value == plan.bound == expected
        assert plan.attained <= budget


@pytest.mark.parametrize("reading", Reading)
def test_rational_tables_too_close_for_floats_are_solved_exactly_in_two_steps(reading):
    """Probabilities of 10^-12, a budget next to 1: a float optimum is close, and the bound met."""
    rng = np.random.default_rng(5)
    tiny = Fraction(1, 10**12)

    def rows(*shape):
        weights = rng.integers(0, 6, shape)
        weights[..., 0] += 1
        totals = weights.sum(axis=-1, keepdims=True)
        exact = np.vectorize(lambda w, n: Fraction(int(w), int(n)), otypes=[object])
        table = exact(weights, totals)
        table[..., 0] -= tiny
        table[..., 1] += tiny
        return table

    for budget in (1 - tiny, Fraction(1, 3) + tiny, tiny, Fraction(1, 10)):
        for _ in range(4):
            beta, nu = (rows(1, 2), rows(4, 2)), (rows(1, 2, 2), rows(4, 2, 2))
            utility = np.array([Fraction(int(k), 6) for k in rng.integers(0, 7, 16)])
            plan = tvd_optimum(beta, nu, utility, budget=budget, reading=reading)
            assert plan.value == plan.bound
            assert plan.attained <= budget
            floats = tvd_optimum(
                to_floats(beta), to_floats(nu), utility.astype(float),
                budget=float(budget), reading=reading,
            )  # fmt: skip
            assert float(plan.value) == pytest.approx(floats.value, abs=1e-9)
