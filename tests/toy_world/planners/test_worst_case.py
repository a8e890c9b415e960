"""The planners against the worst observations, with their certificates recomputed."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.convex_programs import solve_kl_program
from tests.toy_world.planning_problems import (
    budgets,
    missing_after_each_observation,
    most_that_missing_mass_costs,
    opposite_worlds,
    problems,
    random_problem,
)
from theory.constraints import adaptive_kl_nats, fixed_kl_nats
from theory.errors import InvalidBudgetError, SolverError
from theory.process import values
from toy_world.planners import worst_case as planner_worst_case
from toy_world.planners.adaptive_kl import adaptive_kl_optimum
from toy_world.planners.certificate import lagrangian_bound
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Divergence, Reading

READINGS = {
    Reading.FIXED: (fixed_kl_optimum, fixed_kl_nats),
    Reading.ADAPTIVE: (adaptive_kl_optimum, adaptive_kl_nats),
}
each_reading = pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.name)


@each_reading
@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 2, 2), (2, 3, 3), (2, 2, 4)])
def test_values_are_those_of_a_convex_solver_where_it_ends(rng, reading, shape):
    n_actions, n_observations, horizon = shape
    optimal = 0
    for budget in (0.03, 0.2, 0.7):
        problem = random_problem(
            rng, n_actions=n_actions, n_observations=n_observations, horizon=horizon
        )
        solution = solve_kl_program(*problem, budget_nats=budget, reading=reading)
        if solution.status == "optimal":
            optimal += 1
            plan = READINGS[reading][0](*problem, budget_nats=budget)
            assert plan.value == pytest.approx(solution.value, abs=1e-8)
    assert optimal > 0


@each_reading
@given(problem=problems(full_nu=False), budget=budgets)
def test_every_plan_is_feasible_and_certified(reading, problem, budget):
    optimum, kl_nats = READINGS[reading]
    beta, nu, utility = problem
    plan = optimum(*problem, budget_nats=budget)
    assert (plan.divergence, plan.reading, plan.budget) == (Divergence.KL, reading, budget)
    assert plan.attained == pytest.approx(float(kl_nats(plan.pi, beta)), abs=1e-14)
    assert plan.attained <= budget + 1e-15
    assert plan.value == pytest.approx(float(values(plan.pi, nu, utility)[0][0]), abs=1e-14)
    bound = lagrangian_bound(*problem, reading=reading, prices=plan.prices, budget_nats=budget)
    assert plan.bound == pytest.approx(bound, abs=1e-13)
    assert -1e-13 <= plan.gap <= 1e-9


@each_reading
@pytest.mark.parametrize("horizon", [5, 6])
def test_long_horizons_and_extreme_rows_are_certified_too(rng, reading, horizon):
    for budget in (1e-4, 0.1, 2.0):
        problem = random_problem(rng, horizon=horizon, concentration=0.3)
        plan = READINGS[reading][0](*problem, budget_nats=budget)
        assert plan.attained <= budget
        assert -1e-13 <= plan.gap <= 1e-9


@each_reading
def test_the_certificate_holds_in_forty_digits(rng, reading):  # noqa: C901 - five recursions
    """Attained KL, value and bound by plain recursions over histories in mpmath."""
    beta, nu, utility = random_problem(rng)
    plan = READINGS[reading][0](beta, nu, utility, budget_nats=0.3)
    with mpmath.workdps(40):

        def row(table, history, t):
            index = 0
            for a, o in history:
                index = (index * 2 + a) * 2 + o
            return [mpmath.mpf(float(p)) for p in np.atleast_1d(table[t][index]).reshape(-1)]

        def normalised(weights):
            total = mpmath.fsum(weights)
            return [w / total for w in weights]

        def world(history):
            """nu(o|ha) of a history as a function of (a, o)."""
            rows = row(nu, history, len(history))
            return lambda a, o: normalised(rows[2 * a : 2 * a + 2])[o]

        def earned(history):
            index = 0
            for a, o in history:
                index = (index * 2 + a) * 2 + o
            return mpmath.mpf(float(utility[index]))

        def value(history):
            if len(history) == 3:
                return earned(history)
            pi, w = normalised(row(plan.pi, history, len(history))), world(history)
            return sum(pi[a] * w(a, o) * value((*history, (a, o))) for a in (0, 1) for o in (0, 1))

        def kl_to_go(history, observe):
            if len(history) == 3:
                return mpmath.mpf(0)
            pi = normalised(row(plan.pi, history, len(history)))
            base = normalised(row(beta, history, len(history)))
            here = sum(p * mpmath.log(p / q) for p, q in zip(pi, base, strict=True))
            return here + sum(pi[a] * observe(history, a) for a in (0, 1))

        def adaptive(history, a):
            return max(kl_to_go((*history, (a, o)), adaptive) for o in (0, 1))

        def fixed(sequence):
            def observe(history, a):
                return kl_to_go((*history, (a, sequence[len(history)])), observe)

            return kl_to_go((), observe)

        def lagrangian(history, reach):
            if len(history) == 3:
                return reach * earned(history)
            y = row(plan.prices, history, len(history))[0]
            base, w = normalised(row(beta, history, len(history))), world(history)
            gains = [
                sum(lagrangian((*history, (a, o)), reach * w(a, o)) for o in (0, 1)) for a in (0, 1)
            ]
            return y * mpmath.log(
                sum(q * mpmath.exp(g / y) for q, g in zip(base, gains, strict=True))
            )

        attained = (
            kl_to_go((), adaptive)
            if reading is Reading.ADAPTIVE
            else max(fixed((p, q, 0)) for p in (0, 1) for q in (0, 1))
        )
        bound = lagrangian((), mpmath.mpf(1)) + mpmath.mpf("0.3") * row(plan.prices, (), 0)[0]
        assert attained <= mpmath.mpf("0.3")
        assert 0 <= bound - value(()) <= mpmath.mpf("2.1e-10")


@each_reading
@pytest.mark.parametrize("shape", [(3, 1, 4), (4, 3, 1)])
def test_where_no_observation_comes_between_actions_all_readings_agree(rng, reading, shape):
    n_actions, n_observations, horizon = shape
    problem = random_problem(
        rng, n_actions=n_actions, n_observations=n_observations, horizon=horizon
    )
    plan = READINGS[reading][0](*problem, budget_nats=0.2)
    expected = expected_kl_optimum(*problem, budget_nats=0.2)
    assert plan.value == pytest.approx(expected.value, abs=3e-10)
    assert plan.multiplier == pytest.approx(expected.multiplier, rel=1e-6)


@each_reading
def test_an_adversary_makes_the_agent_pay_for_the_dear_observation_alone(reading):
    # Only after o = 0 is there anything to gain. The expected reading halves that price.
    budget = 0.05
    plan = READINGS[reading][0](*opposite_worlds(), budget_nats=budget)
    expected = expected_kl_optimum(*opposite_worlds(), budget_nats=budget / 2)
    assert plan.value == pytest.approx(expected.value, abs=2e-10)
    assert plan.multiplier == pytest.approx(expected.multiplier / 2, rel=1e-6)


@each_reading
def test_without_a_budget_the_plan_is_beta_itself(rng, reading):
    problem = random_problem(rng)
    plan = READINGS[reading][0](*problem, budget_nats=0.0)
    for actions, base in zip(plan.pi, problem[0], strict=True):
        np.testing.assert_allclose(actions, base, atol=1e-15)
    assert (plan.attained, plan.multiplier, plan.gap) == (0.0, math.inf, 0.0)


@each_reading
def test_an_unlimited_budget_buys_what_it_buys_in_the_expected_reading(rng, reading):
    problem = random_problem(rng)
    plan = READINGS[reading][0](*problem, budget_nats=math.inf)
    expected = expected_kl_optimum(*problem, budget_nats=math.inf)
    assert plan.value == pytest.approx(expected.value, abs=1e-14)
    assert plan.multiplier == 0


@each_reading
@given(problem=problems(), budget=budgets)
def test_what_beta_never_does_the_plan_never_does(reading, problem, budget):
    plan = READINGS[reading][0](*problem, budget_nats=budget)
    for actions, base in zip(plan.pi, problem[0], strict=True):
        assert (actions[base == 0] == 0).all()


# Semi-distributions as base policy.


@each_reading
@given(problem=problems(full_beta=False, positive=True), extra=st.floats(1e-3, 3.0))
def test_plans_against_semi_distributions_are_full_and_certified(reading, problem, extra):
    budget = most_that_missing_mass_costs(problem[0]) + extra
    plan = READINGS[reading][0](*problem, budget_nats=budget)
    for actions in plan.pi:
        np.testing.assert_allclose(actions.sum(axis=-1), 1, atol=1e-14)
    assert plan.attained <= budget + 1e-15
    assert -1e-13 <= plan.gap <= 1e-8


@each_reading
def test_a_semi_distribution_needs_some_budget(reading):
    with pytest.raises(InvalidBudgetError, match="budget_nats must be at least"):
        READINGS[reading][0](*missing_after_each_observation(), budget_nats=0.0)


def test_an_adversary_leads_into_dead_ends_that_nature_avoids():
    beta = (np.array([[0.9, 0.1]]), np.array([[0.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    nu = (np.array([[[0.0, 1.0], [0.5, 0.5]]]), np.full((4, 2, 2), 0.5))
    utility = np.array([1.0] * 8 + [0.0] * 8)
    assert expected_kl_optimum(beta, nu, utility, budget_nats=5.0).value == 1
    for optimum, _ in READINGS.values():
        assert optimum(beta, nu, utility, budget_nats=5.0).value == 0


# Errors.


@each_reading
@pytest.mark.parametrize("budget", [-1.0, math.nan])
def test_a_budget_must_be_a_number_from_0(rng, reading, budget):
    with pytest.raises(InvalidBudgetError, match=f"budget_nats must be >= 0, got {budget}"):
        READINGS[reading][0](*random_problem(rng), budget_nats=budget)


@each_reading
def test_a_path_that_does_not_end_is_an_error_with_its_gap(rng, reading, monkeypatch):
    monkeypatch.setattr(planner_worst_case, "MAX_ITERATIONS", 5)
    with pytest.raises(
        SolverError, match=r"ended with a gap of .*, more than 1e-06, at the budget 0.1"
    ):
        READINGS[reading][0](*random_problem(rng), budget_nats=0.1)


@each_reading
def test_a_bound_that_is_too_low_is_an_error(rng, reading, monkeypatch):
    problem = random_problem(rng)
    whole_path = planner_worst_case._central_path

    def sabotaged(adversaries):
        point = whole_path(adversaries)
        return replace(point, soft_value=point.soft_value - 1e-6)

    monkeypatch.setattr(planner_worst_case, "_central_path", sabotaged)
    with pytest.raises(SolverError, match="the certificate is false"):
        READINGS[reading][0](*problem, budget_nats=0.1)


@each_reading
def test_a_path_that_takes_itself_to_have_ended_is_an_error(rng, reading, monkeypatch):
    monkeypatch.setattr(planner_worst_case.SoftPoint, "gap", lambda point, budget_nats: -1.0)
    with pytest.raises(SolverError, match="ended with a gap of 0"):
        READINGS[reading][0](*random_problem(rng), budget_nats=0.1)


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(-50, 50)), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(-50, 50)), min_size=1, max_size=5),
)
def test_a_step_is_whole_unless_a_value_would_lose_more_than_its_share(first, second):
    moves = [tuple(np.array(pairs).T) for pairs in (first, second)]
    step = planner_worst_case._step_length(*moves)
    lost = max(float((-step * direction / value).max()) for value, direction in moves)
    share = planner_worst_case.STEP_FRACTION
    assert lost <= share * (1 + 1e-12)
    assert step == 1 or (step < 1 and lost == pytest.approx(share))
