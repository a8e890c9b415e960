"""The planner that may ask for help, against closed forms and a convex solver."""

import math
import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from tests.toy_world.planning_problems import budgets, random_problem
from theory.bayes_mixture import Update, stack_tables
from theory.constraints import expected_kl_nats, step_kl_nats
from theory.errors import InvalidBudgetError, InvalidDistributionError, InvalidShapeError
from theory.pessimism import pessimistic_imitator
from theory.process import reach_probabilities, values
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum


@st.composite
def problems(draw, *, max_horizon=3):
    """(base, nu, utility), and a help policy as great as base everywhere."""
    tree = draw(trees(max_horizon=max_horizon))
    helper = to_floats(draw(policy_tables(tree)))
    cuts = to_floats(draw(policy_tables(tree)))
    base = tuple(np.minimum(h, c) for h, c in zip(helper, cuts, strict=True))
    nu = to_floats(draw(environment_tables(tree, full=False)))
    n = tree.n_histories(tree.horizon)
    utility = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return base, nu, np.array(utility) / 3, helper


def one_step(base, helper, utility):
    n = len(base)
    return (
        (np.array([base], dtype=float),),
        (np.ones((1, n, 1)),),
        np.array(utility, dtype=float),
        (np.array([helper], dtype=float),),
    )


def plan_for(problem, budget):
    base, nu, utility, helper = problem
    return asking_optimum(base, nu, utility, help_policy=helper, budget_nats=budget)


def convex_value(problem, budget):
    """Value and status of the sequence-form program, by Clarabel."""
    base, nu, utility, helper = problem
    n_actions, n_observations = nu[0].shape[1:]
    constraints, parent, weights, spent = [], np.ones(1), np.ones(1), 0
    for rows, help_rows, observations in zip(base, helper, nu, strict=True):
        act = cp.Variable(rows.shape, nonneg=True)
        ask = cp.Variable((len(rows), 1), nonneg=True)
        acts = cp.sum(act, axis=1, keepdims=True)
        constraints.append(acts + ask == cp.reshape(parent, (len(rows), 1), order="C"))
        limit = cp.multiply(acts @ np.ones((1, n_actions)), rows)
        spent += weights @ cp.sum(cp.rel_entr(act, limit), axis=1)
        flow = act + cp.multiply(ask @ np.ones((1, n_actions)), help_rows)
        repeat = np.kron(np.eye(rows.size), np.ones((n_observations, 1)))
        parent = repeat @ cp.reshape(flow, (rows.size,), order="C")
        weights = (weights[:, None, None] * observations).reshape(-1)
    constraints.append(spent <= budget)
    problem = cp.Problem(cp.Maximize((weights * utility) @ parent), constraints)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(problem.value), problem.status


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_values_are_those_of_a_convex_solver_where_it_ends(rng, horizon):
    optimal = 0
    for budget in (0.05, 0.3, 0.8, 1.5):
        helper, nu, utility = random_problem(rng, horizon=horizon)
        cuts, _, _ = random_problem(rng, horizon=horizon)
        base = tuple(np.minimum(h, c) for h, c in zip(helper, cuts, strict=True))
        problem = base, nu, utility, helper
        value, status = convex_value(problem, budget)
        if status == "optimal":
            optimal += 1
            assert plan_for(problem, budget).value == pytest.approx(value, abs=1e-8)
    assert optimal > 0


@given(problem=problems(), budget=budgets)
def test_every_plan_is_certified(problem, budget):
    base, nu, utility, helper = problem
    plan = plan_for(problem, budget)
    for pi, q, h, law in zip(plan.pi, plan.asking, helper, plan.law, strict=True):
        mixture = q[:, None] * h + (1 - q[:, None]) * pi
        np.testing.assert_allclose(law, mixture, atol=1e-14)
    assert plan.value == pytest.approx(float(values(plan.law, nu, utility)[0][0]), abs=1e-14)
    assert abs(plan.gap) <= 1e-12
    reach = reach_probabilities(plan.law, nu)
    spent = asked = 0.0
    for x, q, kl in zip(reach, plan.asking, step_kl_nats(plan.pi, base), strict=False):
        spent += sum(p * (1 - a) * k for p, a, k in zip(x, q, kl, strict=True) if a < 1)
        asked += x @ q
    assert plan.attained == pytest.approx(spent, abs=1e-13)
    assert plan.expected_asks == pytest.approx(asked, abs=1e-13)
    if plan.multiplier > 0:
        assert plan.attained == pytest.approx(budget, abs=1e-12, rel=1e-7)
    else:
        assert plan.attained <= budget


@given(problem=problems(), budget=budgets)
def test_the_budget_bounds_the_kl_to_the_helper_who_is_at_least_as_likely_everywhere(
    problem, budget
):
    _, nu, _, helper = problem
    plan = plan_for(problem, budget)
    assert float(expected_kl_nats(plan.law, helper, nu)) <= budget + 1e-12
    for law, h in zip(plan.law, helper, strict=True):
        assert (law[h == 0] <= 1e-300).all()


@given(problem=problems())
def test_without_a_budget_the_plan_always_asks(problem):
    _, nu, utility, helper = problem
    plan = plan_for(problem, 0.0)
    assert plan.value == pytest.approx(float(values(helper, nu, utility)[0][0]), abs=1e-14)
    assert plan.attained == 0


def test_an_agent_that_cannot_afford_to_act_for_certain_draws_lots():
    # Acting costs ln 2 and earns 1, asking earns 1/2: at budget b it acts with probability b/ln 2.
    problem = one_step([0.5, 0.0], [0.5, 0.5], [1, 0])
    plan = plan_for(problem, 0.1)
    share = 0.1 / math.log(2)
    assert plan.asking[0][0] == pytest.approx(1 - share, abs=1e-12)
    assert plan.value == pytest.approx((1 + share) / 2, abs=1e-12)
    assert plan.multiplier == pytest.approx(0.5 / math.log(2), rel=1e-9)


def test_where_the_imitator_is_silent_there_is_nothing_but_to_ask():
    problem = one_step([0.0, 0.0], [0.25, 0.75], [1, 0])
    plan = plan_for(problem, math.inf)
    assert (plan.value, plan.asking[0][0], plan.multiplier) == (0.25, 1.0, 0.0)


def test_an_imitator_that_never_asks_is_planned_against_as_any_base_policy_is(rng):
    base, nu, utility = random_problem(rng)
    plan = plan_for((base, nu, utility, base), 0.3)
    plain = expected_kl_optimum(base, nu, utility, budget_nats=0.3)
    assert plan.value == pytest.approx(plain.value, abs=1e-12)


def test_help_that_reaches_what_the_imitator_cannot_is_used_at_the_optimum():
    # The helper earns 1/2 by an action that the imitator never takes; acting earns 1/4.
    problem = one_step([0.5, 0.0], [0.5, 0.5], [0.25, 0.75])
    plan = plan_for(problem, math.inf)
    assert (plan.value, plan.asking[0][0], plan.attained) == (0.5, 1.0, 0.0)


def test_against_a_pessimistic_imitator_of_the_demonstrator_what_he_never_does_stays_undone(rng):
    """Theorem 4's setting: mu in the frozen top set, help by mu."""
    mu, nu, utility = random_problem(rng, horizon=3)
    for level in mu:
        level[:] = [1.0, 0.0]
    other, _, _ = random_problem(rng, horizon=3)
    base = pessimistic_imitator(
        np.array([0.5, 0.5]),
        stack_tables([mu, other]),
        alpha=0.3,
        update=Update.DEMONSTRATOR,
    )
    for budget in (0.1, 1.0, math.inf):
        plan = plan_for((base, nu, utility, mu), budget)
        assert all((law[:, 1] == 0).all() for law in plan.law)


@pytest.mark.parametrize("budget", [-1e-3, math.nan])
def test_a_budget_must_be_a_number_from_0(budget):
    with pytest.raises(InvalidBudgetError, match=f"budget_nats must be >= 0, got {budget}"):
        plan_for(one_step([0.5, 0.5], [0.5, 0.5], [0, 1]), budget)


def test_whoever_is_asked_must_act():
    with pytest.raises(InvalidDistributionError, match=r"must sum to 1, got 0\.75"):
        plan_for(one_step([0.5, 0.5], [0.5, 0.25], [0, 1]), 1.0)


def test_the_help_policy_must_belong_to_the_tree():
    base, nu, utility, _ = one_step([0.5, 0.5], [0.5, 0.5], [0, 1])
    with pytest.raises(InvalidShapeError, match="tables must share a tree"):
        asking_optimum(base, nu, utility, help_policy=(np.full((1, 3), 1 / 3),), budget_nats=1.0)


def test_without_a_budget_acting_as_a_full_base_is_free():
    """base (1/2, 1/2), help (0, 1), U (1, 0): acting earns 1/2, asking 0; KL to base is 0."""
    base, helper = (np.array([[0.5, 0.5]]),), (np.array([[0.0, 1.0]]),)
    nu, utility = (np.ones((1, 2, 1)),), np.array([1.0, 0.0])
    plan = asking_optimum(base, nu, utility, help_policy=helper, budget_nats=0.0)
    assert plan.value == plan.bound == 0.5
    assert plan.attained == 0.0
    assert plan.expected_asks == 0.0
    # Where the base misses mass acting is not free, and asking is all that is left.
    short = (np.array([[0.5, 0.4]]),)
    assert asking_optimum(short, nu, utility, help_policy=helper, budget_nats=0.0).value == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_no_budget_is_the_limit_of_small_ones(seed):
    """A budget of eps moves the value by sqrt(eps / 2) a step at most, from the best free plan."""
    rng = np.random.default_rng(seed)
    base, nu, utility = random_problem(rng, horizon=2)
    helper = random_problem(rng, horizon=2)[0]
    none, tiny = (
        asking_optimum(base, nu, utility, help_policy=helper, budget_nats=eps)
        for eps in (0.0, 1e-10)
    )
    assert none.value <= tiny.value <= none.value + 2e-5
