"""Prices prove a bound, and only prices of an adversary of the reading do."""

import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_world.planning_problems import problems, random_problem
from theory.constraints import adaptive_kl_nats, expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, SolverError
from theory.process import observation_laws, optimal_values, values
from toy_world.planners import ask, divergence, expected_kl, tvd
from toy_world.planners.certificate import Plan, lagrangian_bound
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.problem import Divergence, Reading

KL = {
    Reading.EXPECTED: expected_kl_nats,
    Reading.FIXED: lambda pi, beta, _: fixed_kl_nats(pi, beta),
    Reading.ADAPTIVE: lambda pi, beta, _: adaptive_kl_nats(pi, beta),
}


def prices_of(reading, nu, price, rng):
    """Prices of a mixture of the reading's adversaries, drawn at random."""
    n_actions, n_observations = nu[0].shape[1:]
    if reading is Reading.EXPECTED:
        return tuple(price * level for level in observation_laws(nu)[:-1])
    levels = [np.array([price])]
    for _ in nu[:-1]:
        if reading is Reading.FIXED:  # the same split whatever the actions were
            n = n_observations ** (len(levels) - 1)
            shares = rng.dirichlet(np.ones(n_observations), size=n)
            prefix = [0]
            for _ in range(len(levels) - 1):
                prefix = [
                    p * n_observations + o
                    for p in prefix
                    for _ in range(n_actions)
                    for o in range(n_observations)
                ]
            split = np.repeat(shares[prefix][:, None, :], n_actions, axis=1)
        else:
            split = rng.dirichlet(np.ones(n_observations), size=(len(levels[-1]), n_actions))
        levels.append((levels[-1][:, None, None] * split).reshape(-1))
    return tuple(levels)


@pytest.mark.parametrize("reading", Reading, ids=lambda reading: reading.name)
@settings(max_examples=25)
@given(problem=problems(), log_price=st.floats(-4, 1), share=st.floats(0, 1), seed=st.integers(0))
def test_no_policy_exceeds_the_bound_that_prices_make_of_its_own_kl(
    reading, problem, log_price, share, seed
):
    beta, nu, utility = problem
    rng = np.random.default_rng(seed)
    other = tuple(np.where(rows > 0, rng.random(rows.shape), 0.0) for rows in beta)
    pi = tuple(
        (1 - share) * rows + share * drawn / drawn.sum(axis=1, keepdims=True)
        for rows, drawn in zip(beta, other, strict=True)
    )
    bound = lagrangian_bound(
        *problem,
        reading=reading,
        prices=prices_of(reading, nu, 10.0**log_price, rng),
        budget_nats=max(0.0, float(KL[reading](pi, beta, nu))),
    )
    assert float(values(pi, nu, utility)[0][0]) <= bound + 1e-12


@pytest.mark.parametrize("price", [1e-3, 0.2, 5.0])
def test_of_one_step_the_bound_is_the_soft_maximum_and_what_the_budget_costs(price):
    beta, utility = [0.2, 0.3, 0.5], [1.0, 0.5, 0.0]
    bound = lagrangian_bound(
        (np.array([beta]),),
        (np.ones((1, 3, 1)),),
        np.array(utility),
        reading=Reading.ADAPTIVE,
        prices=(np.array([price]),),
        budget_nats=0.4,
    )
    with mpmath.workdps(40):
        y = mpmath.mpf(price)
        total = mpmath.fsum(
            mpmath.mpf(p) * mpmath.exp(u / y) for p, u in zip(beta, utility, strict=True)
        )
        assert abs(bound - (y * mpmath.log(total) + mpmath.mpf(0.4) * y)) <= 1e-14


def _plan(**changes):
    numbers = dict.fromkeys(("value", "bound", "budget", "attained"), Fraction(1, 2))
    return Plan(
        pi=(),
        divergence=Divergence.TVD,
        reading=Reading.FIXED,
        **(numbers | {"multiplier": Fraction(0)} | changes),
    )


def test_a_plan_s_gap_is_exact_where_its_numbers_are():
    assert _plan(value=Fraction(1, 3)).gap == Fraction(1, 6)


@pytest.mark.parametrize("multiplier", [0.0, 3.0, math.inf])
def test_a_bound_below_the_value_makes_no_plan(multiplier):
    floats = {"value": 0.5, "budget": 0.1, "attained": 0.1, "multiplier": multiplier}
    assert _plan(bound=0.5 - 1e-14, **floats).gap < 0  # rounding
    for below in (1e-11, 1e-6, 1.0, math.nan):
        with pytest.raises(SolverError, match=r"the certificate is false: the bound .* lies below"):
            _plan(bound=0.5 - below, **floats)


def test_exact_numbers_round_nothing():
    with pytest.raises(SolverError, match="the certificate is false"):
        _plan(bound=Fraction(1, 2) - Fraction(1, 10**30))


def test_what_is_overspent_may_buy_its_multiplier_s_worth():
    floats = {"value": 0.5, "bound": 0.5 - 3e-9, "budget": 0.1, "multiplier": 3.0}
    assert _plan(attained=0.1 + 1.1e-9, **floats).gap == pytest.approx(-3e-9)
    with pytest.raises(SolverError, match="a plan that spends"):
        _plan(attained=0.1 + 0.9e-9, **floats)


def test_any_prices_bound_every_policy_within_the_budget(rng):
    problem = random_problem(rng)
    _, nu, utility = problem
    best = expected_kl_optimum(*problem, budget_nats=0.3)
    world = observation_laws(nu)[:-1]
    for multiplier in (0.0, 1e-3, 0.1, best.multiplier, 1.0, 100.0):
        bound = lagrangian_bound(
            *problem,
            reading=Reading.EXPECTED,
            prices=tuple(multiplier * level for level in world),
            budget_nats=0.3,
        )
        assert bound >= best.value - 1e-14
        if multiplier == 0:
            assert bound == pytest.approx(float(optimal_values(nu, utility)[0][0]), abs=1e-14)


def test_prices_must_be_those_of_an_adversary_of_the_reading(rng):
    problem = random_problem(rng)
    uneven = [np.ones(1), rng.random(4), rng.random(16)]
    for reading in Reading:
        with pytest.raises(
            InvalidArgumentError, match=rf"adversary of the reading '{reading.value}'"
        ):
            lagrangian_bound(*problem, reading=reading, prices=tuple(uneven), budget_nats=1.0)
    by_action = (np.ones(1), np.array([1.0, 0.0, 0.0, 1.0]), np.repeat([0.5, 0, 0, 0.5], 4))
    lagrangian_bound(*problem, reading=Reading.ADAPTIVE, prices=by_action, budget_nats=1.0)
    with pytest.raises(InvalidArgumentError, match="reading 'fixed observations'"):
        lagrangian_bound(*problem, reading=Reading.FIXED, prices=by_action, budget_nats=1.0)


def test_prices_must_be_finite_and_of_the_tree(rng):
    problem = random_problem(rng, horizon=1)
    arguments = {"reading": Reading.ADAPTIVE, "budget_nats": 1.0}
    with pytest.raises(
        InvalidArgumentError, match=r"prices need shapes \[\(1,\)\], got \[\(2,\)\]"
    ):
        lagrangian_bound(*problem, prices=(np.ones(2),), **arguments)
    with pytest.raises(InvalidArgumentError, match=r"finite and >= 0, got -1\.0"):
        lagrangian_bound(*problem, prices=(-np.ones(1),), **arguments)
    with pytest.raises(InvalidArgumentError, match="finite and >= 0, got inf"):
        lagrangian_bound(*problem, prices=(np.full(1, np.inf),), **arguments)
    with pytest.raises(InvalidBudgetError, match="an infinite budget"):
        lagrangian_bound(
            *problem, prices=(np.ones(1),), reading=Reading.ADAPTIVE, budget_nats=math.inf
        )


def _lowered(function):
    """`function` with the bound in its answer lowered by 1e-6."""

    def sabotaged(*args, **kwargs):
        found = function(*args, **kwargs)
        if isinstance(found, float):
            return found - 1e-6
        name = "bound" if hasattr(found, "bound") else "soft_value"
        return replace(found, **{name: getattr(found, name) - 1e-6})

    return sabotaged


SABOTAGED = {
    "expected KL": (expected_kl, "_soft_value_iteration", expected_kl.expected_kl_optimum, {}),
    "asking": (ask, "_relaxed", ask.asking_optimum, {"help_policy": None}),
    "TVD": (tvd, "solve_linear_program", tvd.tvd_optimum, {"reading": Reading.FIXED}),
    "reverse KL": (
        divergence,
        "_bound",
        divergence.divergence_optimum,
        {"divergence": Divergence.REVERSE_KL},
    ),
}


@pytest.mark.parametrize("planner", SABOTAGED)
def test_a_planner_whose_bound_is_too_low_says_so(planner, rng, monkeypatch):
    module, name, optimum, options = SABOTAGED[planner]
    problem = random_problem(rng, horizon=2)
    budget = {"budget" if planner in ("TVD", "reverse KL") else "budget_nats": 0.1}
    if "help_policy" in options:
        options = {"help_policy": random_problem(rng, horizon=2)[0]}
    assert optimum(*problem, **budget, **options).gap <= 1e-6
    monkeypatch.setattr(module, name, _lowered(getattr(module, name)))
    with pytest.raises(SolverError, match=r"the certificate is false|ended with a gap of"):
        optimum(*problem, **budget, **options)
