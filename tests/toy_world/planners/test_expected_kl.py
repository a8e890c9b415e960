"""The expected-KL planner against closed forms, brute force and another solver."""

import math
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.convex_programs import solve_kl_program
from tests.toy_world.planning_problems import (
    budgets,
    most_that_missing_mass_costs,
    problems,
    random_problem,
)
from theory.bayes_mixture import joint_predictor, stack_tables
from theory.constraints import expected_kl_nats
from theory.errors import (
    InvalidBudgetError,
)
from theory.process import values
from toy_world.planners.certificate import lagrangian_bound
from toy_world.planners.expected_kl import expected_kl_frontier, expected_kl_optimum
from toy_world.planners.problem import Reading


def one_step(beta, utility):
    """A problem of one step whose action a earns utility[a]."""
    return (
        (np.array([beta], dtype=float),),
        (np.ones((1, len(beta), 1)),),
        np.array(utility, dtype=float),
    )


def binary_probability(q, budget):
    """The p > q with KL(Bern(p) || Bern(q)) = budget, to 40 digits."""
    with mpmath.workdps(40):
        q = mpmath.mpf(q)

        def excess(p):
            return p * mpmath.log(p / q) + (1 - p) * mpmath.log((1 - p) / (1 - q)) - budget

        top = 1 - mpmath.mpf(10) ** -35
        return float(mpmath.findroot(excess, (q * (1 + mpmath.mpf(10) ** -20), top), "anderson"))


def deterministic_policies(beta):
    """Every deterministic policy within beta's support."""
    rows = [np.flatnonzero(row) for level in beta for row in level]
    shapes = [level.shape for level in beta]
    for choice in product(*rows):
        chosen = np.eye(shapes[0][1])[list(choice)]
        yield tuple(np.split(chosen, np.cumsum([shape[0] for shape in shapes])[:-1]))


@pytest.mark.parametrize("q", [0.5, 0.1, 1e-6, 1e-300, 1e-310])
@pytest.mark.parametrize("budget", [1e-9, 1e-3, 0.3])
def test_of_two_actions_the_better_gets_the_probability_that_the_budget_buys(q, budget):
    plan = expected_kl_optimum(*one_step([q, 1 - q], [1, 0]), budget_nats=budget)
    assert plan.value == pytest.approx(binary_probability(q, budget), abs=1e-12)
    assert plan.multiplier > 0


@pytest.mark.parametrize("q", [1e-300, 1e-310])
def test_an_action_at_the_edge_of_float64_is_bought_whole_for_its_logarithm(q):
    plan = expected_kl_optimum(*one_step([q, 1 - q], [1, 0]), budget_nats=800.0)
    assert plan.value == 1
    assert plan.attained == pytest.approx(-math.log(q), rel=1e-14)


@pytest.mark.parametrize("horizon", [2, 3, 4])
def test_values_are_those_of_a_convex_solver_where_it_ends(rng, horizon):
    optimal = 0
    for budget in (0.02, 0.1, 0.3, 1.0):
        problem = random_problem(rng, horizon=horizon)
        solution = solve_kl_program(*problem, budget_nats=budget, reading=Reading.EXPECTED)
        if solution.status == "optimal":
            optimal += 1
            plan = expected_kl_optimum(*problem, budget_nats=budget)
            assert plan.value == pytest.approx(solution.value, abs=1e-8)
    assert optimal > 0


@given(problem=problems(full_nu=False), budget=budgets)
def test_every_plan_is_certified(problem, budget):
    plan = expected_kl_optimum(*problem, budget_nats=budget)
    beta, nu, utility = problem
    bound = lagrangian_bound(
        *problem, reading=Reading.EXPECTED, prices=plan.prices, budget_nats=budget
    )
    assert plan.value == pytest.approx(float(values(plan.pi, nu, utility)[0][0]), abs=1e-14)
    assert plan.attained == pytest.approx(float(expected_kl_nats(plan.pi, beta, nu)), abs=1e-14)
    assert plan.bound == pytest.approx(bound, abs=1e-13)
    assert abs(plan.gap) <= 1e-12
    assert plan.prices[0][0] == plan.multiplier
    if plan.multiplier > 0:
        assert plan.attained == pytest.approx(budget, abs=1e-12, rel=1e-7)
    else:
        assert plan.attained <= budget


@given(problem=problems(max_horizon=2))
def test_an_unlimited_budget_buys_the_optimum_within_the_support_of_beta(problem):
    beta, nu, utility = problem
    best = max(float(values(pi, nu, utility)[0][0]) for pi in deterministic_policies(beta))
    plan = expected_kl_optimum(*problem, budget_nats=math.inf)
    assert plan.value == pytest.approx(best, abs=1e-13)
    assert plan.multiplier == 0


@given(problem=problems())
def test_without_a_budget_the_plan_is_beta_itself(problem):
    beta, nu, utility = problem
    plan = expected_kl_optimum(*problem, budget_nats=0.0)
    for actions, base in zip(plan.pi, beta, strict=True):
        np.testing.assert_allclose(actions, base, atol=1e-15)
    assert plan.attained == pytest.approx(0, abs=1e-15)
    assert plan.multiplier == math.inf
    assert plan.value == pytest.approx(float(values(beta, nu, utility)[0][0]), abs=1e-14)
    assert plan.gap == pytest.approx(0, abs=1e-14)


@given(problem=problems(), budget=budgets)
def test_what_beta_never_does_the_plan_never_does(problem, budget):
    plan = expected_kl_optimum(*problem, budget_nats=budget)
    for actions, base in zip(plan.pi, problem[0], strict=True):
        assert (actions[base == 0] == 0).all()


def future_choice():
    """Both first actions can earn 1: the first only by the right second action, beta 1/2."""
    beta = (np.array([[0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.5]]))
    nu = (np.ones((1, 2, 1)), np.ones((2, 2, 1)))
    return beta, nu, np.array([1.0, 0.0, 1.0, 1.0])


def test_the_constraint_is_slack_from_the_kl_of_the_optimal_policy_closest_to_beta():
    # pi(first) ∝ 1/2 exp(-ln 2), pi(second) ∝ 1/2: KL = -ln(1/4 + 1/2), less than the ln(2)/2
    # of breaking the tie in proportion to beta.
    threshold = -math.log(0.75)
    slack = expected_kl_optimum(*future_choice(), budget_nats=threshold + 1e-12)
    assert (slack.value, slack.multiplier) == (1.0, 0.0)
    assert slack.attained == pytest.approx(threshold, abs=1e-15)
    np.testing.assert_allclose(slack.pi[0], [[1 / 3, 2 / 3]], rtol=1e-15)
    tight = expected_kl_optimum(*future_choice(), budget_nats=threshold - 1e-9)
    assert tight.value < 1
    assert tight.multiplier > 0
    assert tight.attained == pytest.approx(threshold - 1e-9, abs=1e-12)


@pytest.mark.parametrize("difference", [1e-3, 1e-9, 1e-13, 1e-15])
def test_the_budget_is_spent_on_differences_at_the_edge_of_float64(difference):
    problem = one_step([0.2, 0.3, 0.5], [0.5 + difference, 0.5, 0.5 + difference / 3])
    plan = expected_kl_optimum(*problem, budget_nats=0.5)
    assert plan.attained <= 0.5 + 1e-12
    if plan.multiplier > 0:
        assert plan.attained == pytest.approx(0.5, abs=1e-12)
    assert abs(plan.gap) <= 1e-14


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e-150])
def test_the_scale_of_utilities_changes_no_policy(rng, scale):
    beta, nu, utility = random_problem(rng)
    plan = expected_kl_optimum(beta, nu, utility, budget_nats=0.2)
    scaled = expected_kl_optimum(beta, nu, utility * scale, budget_nats=0.2)
    for actions, other in zip(plan.pi, scaled.pi, strict=True):
        np.testing.assert_allclose(actions, other, atol=1e-10)


@pytest.mark.parametrize("budget", [1e-300, 1e-30, 1e-15])
def test_budgets_too_small_for_float64_tables_leave_beta(rng, budget):
    beta, nu, utility = random_problem(rng)
    plan = expected_kl_optimum(beta, nu, utility, budget_nats=budget)
    for actions, base in zip(plan.pi, beta, strict=True):
        np.testing.assert_allclose(actions, base, atol=1e-6)
    assert abs(plan.gap) <= 1e-13


def test_the_frontier_is_concave_and_its_slope_is_the_multiplier(rng):
    problem = random_problem(rng, horizon=4)
    step = 1e-4
    grid = [0.05, 0.1, 0.2, 0.4, 0.8]
    around = [expected_kl_frontier(*problem, (b - step, b, b + step)) for b in grid]
    multipliers = [middle.multiplier for _, middle, _ in around]
    assert multipliers == sorted(multipliers, reverse=True)
    for low, middle, high in around:
        slope = (high.value - low.value) / (2 * step)
        assert slope == pytest.approx(middle.multiplier, rel=1e-4)


def test_a_joint_predictor_is_planned_for_under_its_own_posterior(rng):
    models = [random_problem(rng) for _ in range(3)]
    policies, environments = (stack_tables([model[i] for model in models]) for i in (0, 1))
    xi, world = joint_predictor(np.array([0.5, 0.3, 0.2]), policies, environments)
    problem = xi, world, models[0][2]
    solution = solve_kl_program(*problem, budget_nats=0.3, reading=Reading.EXPECTED)
    plan = expected_kl_optimum(*problem, budget_nats=0.3)
    assert plan.value == pytest.approx(solution.value, abs=1e-8)


def test_exact_tables_are_planned_with_as_well(rng):
    _, nu, utility = random_problem(rng, horizon=1)
    exact = np.array([[1, 3]], dtype=object) * np.array(1, dtype=object) / 4
    plan = expected_kl_optimum((exact,), nu, utility, budget_nats=0.1)
    same = expected_kl_optimum((exact.astype(float),), nu, utility, budget_nats=0.1)
    assert plan.value == same.value


# Semi-distributions as base policy.


def test_missing_mass_costs_at_least_its_logarithm():
    beta = (np.array([[0.3, 0.2]]), np.array([[0.5, 0.5], [0.1, 0.1]]))
    nu = (np.ones((1, 2, 1)), np.ones((2, 2, 1)))
    utility = np.array([0.0, 0.0, 0.0, 1.0])
    least = -math.log(0.3 + 0.2 * 0.2)
    with pytest.raises(InvalidBudgetError, match=f"must be at least {least:.10}"):
        expected_kl_optimum(beta, nu, utility, budget_nats=least - 1e-6)
    plan = expected_kl_optimum(beta, nu, utility, budget_nats=least)
    np.testing.assert_allclose(plan.pi[0], [[0.3 / 0.34, 0.04 / 0.34]], rtol=1e-9)
    rich = expected_kl_optimum(beta, nu, utility, budget_nats=10.0)
    # The optimum costs ln(1/0.2) + ln(1/0.1).
    assert rich.value == pytest.approx(1, abs=1e-14)
    assert rich.attained == pytest.approx(math.log(50), abs=1e-14)


@given(problem=problems(full_beta=False, positive=True), extra=st.floats(1e-3, 3.0))
def test_plans_against_semi_distributions_are_full_and_certified(problem, extra):
    budget = most_that_missing_mass_costs(problem[0]) + extra
    plan = expected_kl_optimum(*problem, budget_nats=budget)
    for actions in plan.pi:
        np.testing.assert_allclose(actions.sum(axis=-1), 1, atol=1e-14)
    assert plan.attained <= budget + 1e-12
    assert abs(plan.gap) <= 1e-12


def test_dead_ends_are_not_entered_unless_no_observation_leads_there():
    # After action 0 comes observation 0, where beta has no mass, or 1.
    beta = (np.array([[0.9, 0.1]]), np.array([[0.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    utility = np.array([1.0] * 8 + [0.0] * 8)
    for p, value in ((0.5, 0.0), (0.0, 1.0)):
        nu = (np.array([[[p, 1 - p], [0.5, 0.5]]]), np.full((4, 2, 2), 0.5))
        plan = expected_kl_optimum(beta, nu, utility, budget_nats=5.0)
        assert plan.value == value
        assert math.isfinite(plan.attained)


# Bad input.


@pytest.mark.parametrize("budget", [-1e-9, math.nan])
def test_a_budget_must_be_a_number_from_0(rng, budget):
    with pytest.raises(InvalidBudgetError, match=f"budget_nats must be >= 0, got {budget}"):
        expected_kl_optimum(*random_problem(rng), budget_nats=budget)
