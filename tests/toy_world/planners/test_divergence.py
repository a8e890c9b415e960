"""Reverse-KL and chi-squared optima against closed forms, a convex solver and random policies."""

import math

import cvxpy as cp
import mpmath
import numpy as np
import pytest

from tests.toy_world.planning_problems import random_problem
from theory.constraints import expected_chi_squared, expected_reverse_kl_nats
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    SolverError,
)
from theory.process import optimal_values, values
from toy_world.planners import divergence as planner_divergence
from toy_world.planners.divergence import divergence_optimum
from toy_world.planners.problem import Divergence

MEASURE = {
    Divergence.REVERSE_KL: expected_reverse_kl_nats,
    Divergence.CHI_SQUARED: expected_chi_squared,
}


def _one_step(b, u):
    """(beta, nu, utility) with one observation: a_i pays u_i."""
    return (np.array([b]),), (np.ones((1, len(b), 1)),), np.array(u)


def test_a_chi_squared_budget_buys_the_standard_deviation_of_the_utility():
    """Where no probability reaches 0: max of p u is the mean + sqrt(eps Var)."""
    b, u = np.array([0.3, 0.5, 0.2]), np.array([0.2, 0.5, 0.9])
    plan = divergence_optimum(*_one_step(b, u), divergence=Divergence.CHI_SQUARED, budget=0.1)
    mean = b @ u
    deviation = math.sqrt(b @ (u - mean) ** 2)
    assert plan.value == pytest.approx(mean + math.sqrt(0.1) * deviation, abs=1e-8)
    assert plan.multiplier == pytest.approx(deviation / (2 * math.sqrt(0.1)), rel=1e-6)


def test_a_reverse_kl_budget_lets_pi_do_what_beta_never_does():
    """With a deterministic beta that earns nothing, 1 - exp(-eps) goes to the best action."""
    for eps in (0.01, 1.0, 5.0):
        plan = divergence_optimum(
            *_one_step([1.0, 0.0, 0.0], [0.0, 0.5, 1.0]),
            divergence=Divergence.REVERSE_KL,
            budget=eps,
        )
        assert plan.value == pytest.approx(-math.expm1(-eps), abs=1e-8)
        assert plan.pi[0][0, 2] == pytest.approx(-math.expm1(-eps), abs=1e-7)


def test_a_chi_squared_budget_never_lets_pi_do_what_beta_never_does():
    plan = divergence_optimum(
        *_one_step([0.5, 0.5, 0.0], [0.0, 0.5, 1.0]),
        divergence=Divergence.CHI_SQUARED,
        budget=100.0,
    )
    assert plan.pi[0][0, 2] == 0
    assert plan.value == pytest.approx(0.5, abs=1e-8)


def _cvxpy_value(beta, nu, utility, divergence, budget):
    """Two steps, in sequence form, by Clarabel."""
    n_actions, n_observations = nu[0].shape[1:]
    first = cp.Variable(n_actions)
    second = cp.Variable((n_actions * n_observations, n_actions))
    source = np.repeat(np.eye(n_actions), n_observations, axis=0)
    world = nu[0].reshape(-1)
    base = np.repeat(beta[0].reshape(-1), n_observations)[:, None] * beta[1]
    earned = world[:, None] * (nu[1] * utility.reshape(nu[1].shape)).sum(axis=-1)
    weight = np.repeat(world[:, None], n_actions, axis=1)
    if divergence is Divergence.REVERSE_KL:
        distance = cp.sum(cp.multiply(weight, cp.rel_entr(base, second)))
    else:
        distance = cp.sum(cp.multiply(weight / base, cp.square(second - base)))
    problem = cp.Problem(
        cp.Maximize(cp.sum(cp.multiply(earned, second))),
        [
            first >= 0,
            second >= 0,
            cp.sum(first) == 1,
            cp.sum(second, axis=1) == source @ first,
            distance <= budget,
        ],
    )
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem.value


@pytest.mark.parametrize("divergence", MEASURE)
@pytest.mark.parametrize("budget", [0.01, 0.3, 2.0])
def test_optima_are_those_of_a_generic_convex_solver(divergence, budget, rng):
    for n_actions, n_observations in ((2, 2), (3, 2), (2, 3)):
        problem = random_problem(
            rng, n_actions=n_actions, n_observations=n_observations, horizon=2, concentration=2.0
        )
        plan = divergence_optimum(*problem, divergence=divergence, budget=budget)
        expected = _cvxpy_value(*problem, divergence, budget)
        assert plan.value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("divergence", MEASURE)
def test_plans_keep_their_budget_and_their_certificate(divergence, rng):
    for budget in (1e-3, 0.1, 1.0, 30.0):
        beta, nu, utility = random_problem(rng)
        plan = divergence_optimum(beta, nu, utility, divergence=divergence, budget=budget)
        attained = float(MEASURE[divergence](plan.pi, beta, nu))
        assert plan.attained == pytest.approx(attained, rel=1e-12)
        assert attained <= budget * (1 + 1e-12)
        assert -1e-14 <= plan.gap <= 1e-6
        assert plan.value == pytest.approx(float(values(plan.pi, nu, utility)[0][0]), abs=1e-14)


@pytest.mark.parametrize("divergence", MEASURE)
def test_no_random_policy_within_the_budget_beats_the_bound(divergence, rng):
    beta, nu, utility = random_problem(rng, horizon=2)
    for _ in range(60):
        # From beta towards something random, so that all sizes of divergence come up.
        share = rng.random()
        pi = tuple(
            (1 - share) * rows + share * rng.dirichlet(np.ones(rows.shape[1]), size=len(rows))
            for rows in beta
        )
        budget = float(MEASURE[divergence](pi, beta, nu))
        if budget < 1e-3:
            continue
        plan = divergence_optimum(beta, nu, utility, divergence=divergence, budget=budget)
        assert float(values(pi, nu, utility)[0][0]) <= plan.bound + 1e-12


def test_a_slack_budget_gives_the_optimum_of_all_policies(rng):
    beta, nu, utility = random_problem(rng)
    plan = divergence_optimum(beta, nu, utility, divergence=Divergence.CHI_SQUARED, budget=1e9)
    assert plan.value == pytest.approx(float(optimal_values(nu, utility)[0][0]), abs=1e-8)


@pytest.mark.parametrize("divergence", MEASURE)
def test_no_budget_is_beta_itself(divergence, rng):
    beta, nu, utility = random_problem(rng)
    plan = divergence_optimum(beta, nu, utility, divergence=divergence, budget=0.0)
    for rows, base in zip(plan.pi, beta, strict=True):
        np.testing.assert_allclose(rows, base, rtol=1e-15)
    assert plan.attained <= 1e-15
    assert plan.gap == 0


def test_observations_that_never_come_change_nothing(rng):
    beta, nu, utility = random_problem(rng, horizon=2)
    nu[0][:, :, 0], nu[0][:, :, 1] = 1.0, 0.0
    plans = []
    for never in (0.0, 1.0):
        other = utility.reshape(2, 2, 2, 2).copy()
        other[:, 1] = never
        plans.append(
            divergence_optimum(
                beta, nu, other.reshape(-1), divergence=Divergence.REVERSE_KL, budget=0.2
            ).value
        )
    assert plans[0] == pytest.approx(plans[1], abs=2e-8)


@pytest.mark.parametrize("divergence", MEASURE)
@pytest.mark.parametrize("miss", [False, True], ids=["full nu", "nu misses mass"])
@pytest.mark.parametrize("budget", [1e-12, 1e-9, 1e-6, 1e-4, 5.0, 100.0])
def test_certificates_are_two_sided_at_tiny_and_large_budgets(divergence, miss, budget, rng):
    """A bound below the value of a policy within the budget would be a false certificate."""
    for horizon in (1, 2, 2):
        beta, nu, utility = random_problem(rng, horizon=horizon, concentration=2.0)
        if miss:
            nu = tuple(level * rng.uniform(0.3, 1, (*level.shape[:2], 1)) for level in nu)
        plan = divergence_optimum(beta, nu, utility, divergence=divergence, budget=budget)
        attained = float(MEASURE[divergence](plan.pi, beta, nu))
        assert attained <= budget * (1 + 1e-9) + 1e-15
        assert -1e-13 <= plan.gap <= 1e-6


def test_one_step_of_a_tiny_reverse_kl_budget_is_the_root_of_its_equation():
    """beta = (1/2, 1/2), U = (1, 0): KL(beta || (q, 1 - q)) = -1/2 ln(4 q (1 - q)) = eps."""
    for eps in (1e-9, 1e-6, 1e-4):
        q = 0.5 + 0.5 * math.sqrt(-math.expm1(-2 * eps))
        plan = divergence_optimum(
            *_one_step([0.5, 0.5], [1.0, 0.0]), divergence=Divergence.REVERSE_KL, budget=eps
        )
        assert plan.value == pytest.approx(q, abs=1e-9)
        assert plan.bound >= q - 1e-14


@pytest.mark.parametrize("b", [1e-12, 1e-6, 1e-3, 0.999])
def test_one_step_of_an_extreme_row_is_the_root_of_its_equation_in_forty_digits(b):
    """beta = (b, 1 - b), U = (1, 0): b ln(b/q) + (1-b) ln((1-b)/(1-q)) = eps with q > b."""
    for eps in (1e-12, 1e-10, 1e-8, 1e-3, 1.0):
        plan = divergence_optimum(
            *_one_step([b, 1 - b], [1.0, 0.0]), divergence=Divergence.REVERSE_KL, budget=eps
        )
        with mpmath.workdps(40):
            p = mpmath.mpf(b)

            def excess(q, p=p, eps=eps):
                return p * mpmath.log(p / q) + (1 - p) * mpmath.log((1 - p) / (1 - q)) - eps

            low, high = p, 1 - mpmath.mpf(10) ** -35
            for _ in range(120):
                q = (low + high) / 2
                low, high = (q, high) if excess(q) < 0 else (low, q)
        assert plan.value == pytest.approx(float(q), abs=1e-6)
        assert plan.bound >= float(q) - 1e-13


@pytest.mark.parametrize("concentration", [0.05, 0.1, 0.3, 1.0])
def test_tiny_budgets_of_extreme_policies_with_zeros_are_solved(concentration):
    """Seeds of their own: at 1e-11 to 1e-9 one such problem in 200 once ended without a plan."""
    rng = np.random.default_rng(1)
    for n_actions, n_observations, horizon in [(2, 3, 1), (2, 3, 2), (3, 2, 2), (2, 2, 3)] * 6:
        beta, nu, utility = random_problem(
            rng,
            n_actions=n_actions,
            n_observations=n_observations,
            horizon=horizon,
            concentration=concentration,
        )
        never = tuple(
            (rows < rows.max(axis=1, keepdims=True)) & (rng.random(rows.shape) < 0.2)
            for rows in beta
        )
        beta = tuple(np.where(zero, 0.0, rows) for rows, zero in zip(beta, never, strict=True))
        beta = tuple(rows / rows.sum(axis=1, keepdims=True) for rows in beta)
        budget = 10.0 ** rng.uniform(-12, -8)
        plan = divergence_optimum(
            beta, nu, utility, divergence=Divergence.REVERSE_KL, budget=budget
        )
        assert plan.attained <= budget * (1 + 1e-9) + 1e-15
        assert -1e-13 <= plan.gap <= 1e-6


def test_reverse_kl_counts_what_is_paid_before_the_process_ends():
    """nu ends after action 0, as often as not after 1: both actions count in full."""
    beta = (np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]] * 2))
    nu = (np.array([[[0.0], [0.5]]]), np.ones((2, 2, 1)))
    utility = np.array([0.0, 0.0, 1.0, 0.5])
    plan = divergence_optimum(beta, nu, utility, divergence=Divergence.REVERSE_KL, budget=0.05)
    # With p = pi(1) and q = pi(0|1): KL = -ln(4 p (1-p))/2 - (1/4) ln(4 q (1-q))/2 and value
    # p/2 (1 + q)/2, on a fine grid.
    p, q = np.meshgrid(np.linspace(0.5, 0.8, 3001), np.linspace(0.5, 0.9, 4001), indexing="ij")
    kl = -np.log(4 * p * (1 - p)) / 2 - np.log(4 * q * (1 - q)) / 8
    best = np.where(kl <= 0.05, p * (1 + q) / 4, 0.0).max()
    assert plan.value == pytest.approx(best, abs=1e-4)
    assert plan.bound >= best
    assert plan.attained == pytest.approx(0.05, rel=1e-6)


def test_impossible_arguments_are_refused(rng, monkeypatch):
    beta, nu, utility = random_problem(rng, horizon=1)
    with pytest.raises(InvalidArgumentError, match="reverse KL or chi-squared, got TVD; the other"):
        divergence_optimum(beta, nu, utility, divergence=Divergence.TVD, budget=1.0)
    chi = {"divergence": Divergence.CHI_SQUARED}
    with pytest.raises(InvalidBudgetError, match="budget must be >= 0, got -1"):
        divergence_optimum(beta, nu, utility, budget=-1.0, **chi)
    with pytest.raises(InvalidBudgetError, match=r"budget must be finite .* got inf"):
        divergence_optimum(beta, nu, utility, budget=math.inf, **chi)
    with pytest.raises(
        InvalidDistributionError, match=r"rows of beta must sum to 1, got 0\.(5|49999)"
    ):
        divergence_optimum(tuple(b / 2 for b in beta), nu, utility, budget=1.0, **chi)
    monkeypatch.setattr(planner_divergence, "MOST_STEPS", 1)
    with pytest.raises(SolverError, match="ended with a gap of"):
        divergence_optimum(beta, nu, utility, budget=0.1, **chi)
