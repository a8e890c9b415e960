"""Missing mass: what acting costs, who must ask, and what may fill the gap."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import budgets_nats, log_of, log_rows, log_semi_rows, rational_rows
from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from theory.arrays import MASS_TOLERANCE
from theory.bayes_mixture import Update, stack_tables
from theory.constraints import adaptive_kl_nats, expected_kl_nats, kl_log_sum, step_kl_nats
from theory.divergences import kl_nats, log_missing_mass
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
)
from theory.log_sum import LogSum
from theory.missing_mass import (
    RENORMALISE_LIMIT,
    Help,
    acting_cost_nats,
    completed,
    may_act,
    renormalised,
)
from theory.pessimism import help_probability, pessimistic_imitator
from theory.process import as_table, reach_probabilities, values
from theory.projections import geometric_projection
from toy_world.planners.ask import asking_optimum

F = Fraction
INF = math.inf
libraries = pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["numpy", "torch"])
semi_rows = st.integers(1, 4).flatmap(lambda n: rational_rows(n, full=False))
pairs = st.integers(1, 5).flatmap(lambda n: st.tuples(log_semi_rows(n), log_rows(n)))


# ------------------------------------------------------------------- acting and asking


@given(semi_rows.filter(any), st.data())
def test_acting_costs_the_missing_mass_and_the_kl_to_what_is_left(nu, data):
    """`KL(pi||nu) = KL(pi || nu/(1-theta)) - ln(1-theta)`, in exact logarithms."""
    pi = data.draw(rational_rows(len(nu)))
    mass = sum(nu)
    to_what_is_left = kl_log_sum(pi, [x / mass for x in nu])
    assert kl_log_sum(pi, nu) == to_what_is_left + LogSum.log(1 / mass)
    assert kl_log_sum(pi, nu) >= LogSum.log(1 / mass)


@given(st.one_of(st.floats(0, 1), st.floats(-40, 0).map(lambda x: -math.expm1(-(10**x)))))
def test_the_least_cost_is_that_of_60_digits(theta):
    found = float(acting_cost_nats(np.array(theta)))
    if theta == 1:
        assert found == INF
        return
    with mpmath.workdps(60):
        exact = -mpmath.log1p(-mpmath.mpf(theta))
    assert abs(found - exact) <= 1e-15 * exact


@libraries
def test_batches_of_any_shape_come_back_in_float64(kind):
    theta = kind(np.array([[0.0, 0.25], [0.5, 1.0]], dtype=np.float32))
    cost = acting_cost_nats(theta)
    expected = [[0.0, -math.log(0.75)], [math.log(2), INF]]
    np.testing.assert_allclose(np.asarray(cost), expected, rtol=1e-15)
    assert str(cost.dtype).endswith("float64")
    remaining = kind(np.array([1.0, 0.3], dtype=np.float32))
    assert may_act(theta, remaining).tolist() == [[True, True], [True, False]]


def test_the_cost_grows_by_one_over_what_is_left():
    theta = torch.tensor([0.0, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    cost = acting_cost_nats(theta)
    cost[:3].sum().backward()
    np.testing.assert_allclose(theta.grad.numpy(), [1.0, 2.0, 10.0, 0.0], rtol=1e-14)
    assert cost[3] == INF


@given(st.floats(0, 1), budgets_nats())
def test_who_may_act_can_pay_and_who_may_not_cannot(theta, budget):
    allowed = bool(may_act(np.array(theta), np.array(budget)))
    with mpmath.workdps(60):
        left = 1 - mpmath.mpf(theta)
        cost = -mpmath.log(left) if left else mpmath.inf
    if allowed:
        assert theta < 1
        assert cost <= budget * (1 + 2e-15)
    else:
        assert cost >= budget * (1 - 2e-15)


def test_nothing_missing_is_free_and_everything_missing_is_beyond_any_budget():
    assert bool(may_act(np.array(0.0), np.array(0.0)))
    assert not bool(may_act(np.array(1.0), np.array(INF)))


def test_two_members_who_agree_on_a_fifth_cost_a_pessimist_1_61_nats_a_step():
    base = pessimist_of([(F(9, 10), F(1, 10), F(0)), (F(1, 10), F(9, 10), F(0))])
    assert list(base[0][0]) == [F(1, 10), F(1, 10), 0]
    theta = help_probability(base)[0].astype(np.float64)
    assert acting_cost_nats(theta)[0] == pytest.approx(math.log(5), rel=1e-15)
    assert round(math.log(5), 2) == 1.61
    assert list(may_act(np.repeat(theta, 2), np.array([1.6, 1.61]))) == [False, True]
    # Near to what is left is not near to what there is.
    what_is_left = log_of([F(1, 2), F(1, 2), F(0)])
    assert kl_nats(what_is_left, log_of(base[0][0])) == pytest.approx(math.log(5), rel=1e-14)


def test_two_members_who_agree_on_nothing_leave_nothing_but_to_ask():
    base = pessimist_of([(F(1), F(0), F(0)), (F(0), F(1), F(0))])
    assert list(help_probability(base)[0]) == [1]
    assert not may_act(np.array([1.0]), np.array([INF]))[0]
    with pytest.raises(InvalidDistributionError, match="misses 1 of its mass"):
        renormalised(log_of(base[0][0])[None])


def pessimist_of(members):
    """The pessimistic imitator at alpha = 3/10 of equally likely members, one step."""
    tables = stack_tables([(as_table([member]),) for member in members])
    weights = [F(1, len(members))] * len(members)
    return pessimistic_imitator(weights, tables, alpha=F(3, 10), update=Update.DEMONSTRATOR)


# ------------------------------------------- the rule against the planner that may ask


@st.composite
def asking_problems(draw):
    """mu, an imitator at most mu, an environment, a proposal, utilities, lots and a budget."""
    tree = draw(trees(max_horizon=3))
    mu = to_floats(draw(policy_tables(tree)))
    cuts = to_floats(draw(policy_tables(tree, full=False)))
    base = tuple(np.minimum(m, c) for m, c in zip(mu, cuts, strict=True))
    nu = to_floats(draw(environment_tables(tree)))
    proposal = to_floats(draw(policy_tables(tree)))
    n = tree.n_histories(tree.horizon)
    utility = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))) / 3
    lots = draw(st.sampled_from([0.0, 0.0, 0.25, 0.75]))
    return base, mu, nu, proposal, utility, lots, draw(st.sampled_from([0.0, 0.1, 0.7, 2.0]))


def play_by_the_rule(base, mu, proposal, *, n_observations, lots, budget):
    """What an agent does that goes from step to step with what is left of its budget.

    Where it can pay it acts with probability `1 - lots`, as near to its proposal as the rest of
    the budget allows; otherwise it asks mu. Returns pi, the probabilities of asking, the charges
    and the actions that come about, by level.
    """
    pi, asking, charges = [], [], []
    remaining = np.array([budget])
    for rows, wanted in zip(base, proposal, strict=True):
        log_base = np.array([log_of(row) for row in rows])
        theta = np.exp(log_missing_mass(log_base))
        cost, acts = acting_cost_nats(theta), may_act(theta, remaining)
        law, charge = np.full(rows.shape, 1 / rows.shape[1]), np.zeros(len(rows))
        for h in np.flatnonzero(acts):
            left, aim = renormalised(log_base[h], limit=1.0), log_of(wanted[h])
            if np.any((aim > -INF) & (left > -INF)):  # else nothing pulls it anywhere
                aim = geometric_projection(aim, left, remaining[h] - cost[h]).log_x
            else:
                aim = left
            law[h] = np.exp(aim)
            charge[h] = cost[h] + kl_nats(aim, left)
        pi.append(law)
        asking.append(np.where(acts, lots, 1.0))
        charges.append((1 - asking[-1]) * charge)
        after = np.maximum(remaining - charges[-1], 0.0)
        remaining = np.repeat(after, rows.shape[1] * n_observations)
    law = tuple(
        q[:, None] * m + (1 - q[:, None]) * p for q, m, p in zip(asking, mu, pi, strict=True)
    )
    return tuple(pi), asking, charges, law


@given(asking_problems())
def test_who_follows_the_rule_pays_what_the_planner_counts_and_never_beats_it(problem):
    """Charges by `-ln(1-theta)` and the KL to what is left; the planner's are KLs to nu."""
    base, mu, nu, proposal, utility, lots, budget = problem
    pi, asking, charges, law = play_by_the_rule(
        base, mu, proposal, n_observations=nu[0].shape[2], lots=lots, budget=budget
    )
    reach = reach_probabilities(law, nu)[:-1]
    charged = sum(x @ charge for x, charge in zip(reach, charges, strict=True))
    counted = sum(
        x[acts] @ ((1 - q[acts]) * kl[acts])
        for x, q, kl in zip(reach, asking, step_kl_nats(pi, base), strict=True)
        for acts in [q < 1]
    )
    assert charged == pytest.approx(counted, abs=1e-12)
    assert charged <= budget + 1e-11
    plan = asking_optimum(base, nu, utility, help_policy=mu, budget_nats=max(budget, charged))
    assert float(values(law, nu, utility)[0][0]) <= plan.value + 1e-11


@given(asking_problems())
def test_what_is_charged_on_the_way_bounds_the_kl_to_the_demonstrator(problem):
    """Theorem 4 by enumeration: in expectation, and for the worst observations on any path."""
    base, mu, nu, proposal, _, lots, budget = problem
    _, _, charges, law = play_by_the_rule(
        base, mu, proposal, n_observations=nu[0].shape[2], lots=lots, budget=budget
    )
    reach = reach_probabilities(law, nu)[:-1]
    charged = sum(x @ charge for x, charge in zip(reach, charges, strict=True))
    assert float(expected_kl_nats(law, mu, nu)) <= charged + 1e-11
    assert float(adaptive_kl_nats(law, mu)) <= budget + 1e-11


def test_charging_for_moving_alone_would_not_bound_it():
    """Who is charged only for the KL to what is left acts for nothing, and mu is left behind."""
    mu, base = (F(1, 10), F(9, 10)), (F(1, 10), F(0))
    pi = (F(1), F(0))
    assert kl_log_sum(pi, [x / sum(base) for x in base]) == LogSum.log(1)
    assert kl_log_sum(pi, mu) == LogSum.log(10) == kl_log_sum(pi, base)


# ------------------------------------------------------------------- filling the gap


@given(pairs)
def test_the_demonstrator_fills_the_gap(pair):
    """`nu + theta mu`, in 60 digits; a mass that is 1 but for rounding misses nothing."""
    log_nu, log_mu = pair
    law = completed(log_nu, log_mu)
    with mpmath.workdps(60):
        nu = [mpmath.exp(mpmath.mpf(float(x))) for x in log_nu]
        theta = 1 - mpmath.fsum(nu)
        exact = [
            n + theta * mpmath.exp(mpmath.mpf(float(m))) for n, m in zip(nu, log_mu, strict=True)
        ]
        assert all(
            abs(mpmath.exp(mpmath.mpf(float(x))) - y) <= 1e-12 + 1e-13 * y
            for x, y in zip(law, exact, strict=True)
        )
    assert not np.isnan(law).any()
    assert np.all(law[(log_nu == -INF) & (log_mu == -INF)] == -INF)
    assert abs(np.exp(law).sum() - 1) <= MASS_TOLERANCE


@libraries
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_filled_law_comes_in_the_precision_and_shape_of_the_imitator(kind, dtype):
    nu = kind(np.array([[-INF, -INF], [np.log(0.5), -INF]], dtype=dtype))
    mu = kind(np.log(np.array([0.25, 0.75], dtype=dtype)))
    law = completed(nu, mu)
    assert law.dtype == nu.dtype
    np.testing.assert_allclose(np.exp(np.asarray(law)), [[0.25, 0.75], [0.625, 0.375]], rtol=1e-6)


def test_gradients_reach_the_imitator_past_symbols_that_nobody_writes():
    nu = torch.tensor([math.log(0.5), math.log(0.25), -INF, -INF], dtype=torch.float64)
    mu = torch.tensor([math.log(0.5), -INF, math.log(0.5), -INF], dtype=torch.float64)
    nu.requires_grad_()
    law = completed(nu, mu)
    (law[:3].exp() * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)).sum().backward()
    # d/d ln nu_i of sum c (nu + (1 - sum nu) mu) = nu_i (c_i - c . mu), and c . mu = 5/2.
    np.testing.assert_allclose(nu.grad.numpy(), [0.5 * -1.5, 0.25 * -0.5, 0.0, 0.0], atol=1e-15)


def test_filling_the_gap_gives_up_the_bound_on_the_kl_to_the_demonstrator():
    """The docstring's example: nothing is charged for the filled law, 0.131 nats from mu."""
    nu, mu = (F(1, 2), F(0)), (F(1, 2), F(1, 2))
    law = np.exp(completed(log_of(nu), log_of(mu)))
    np.testing.assert_allclose(law, [0.75, 0.25], rtol=1e-15)
    assert round(float(kl_log_sum((F(3, 4), F(1, 4)), mu)), 3) == 0.131


@given(
    st.integers(1, 4).flatmap(lambda n: st.tuples(rational_rows(n, full=False), rational_rows(n)))
)
def test_what_neither_of_them_ever_does_stays_impossible(pair):
    nu, mu = pair
    law = completed(log_of(nu), log_of(mu))
    theta = 1 - sum(nu)
    for x, n, m in zip(law, nu, mu, strict=True):
        assert (x == -INF) == (n + theta * m == 0)


def test_only_a_demonstrator_who_always_acts_fills_a_gap():
    short = np.log([0.5, 0.25])
    with pytest.raises(
        InvalidDistributionError, match=r"log_demonstrator must sum to 1, got 0\.75"
    ):
        completed(short, short)
    with pytest.raises(InvalidDistributionError, match="log_p must sum to at most 1"):
        completed(np.log([0.75, 0.75]), np.log([0.5, 0.5]))
    with pytest.raises(InvalidShapeError, match="same number of symbols"):
        completed(short, np.log([1.0]))


# ------------------------------------------------------------------- dividing by what is left


@given(semi_rows.filter(any))
def test_what_is_left_is_divided_by_its_mass(nu):
    found = np.exp(renormalised(log_of(nu), limit=1.0))
    np.testing.assert_allclose(found, [float(x / sum(nu)) for x in nu], rtol=1e-13)


@libraries
def test_more_than_a_limit_may_not_be_missing(kind):
    fit, unfit = [0.72, 0.24], [0.72, 0.2]
    found = renormalised(kind(np.log([fit, [0.5, 0.5]])))
    np.testing.assert_allclose(np.exp(np.asarray(found)), [[0.75, 0.25], [0.5, 0.5]], rtol=1e-14)
    with pytest.raises(InvalidDistributionError, match=r"misses 0\.08 of its mass .*limit 0\.05"):
        renormalised(kind(np.log([fit, unfit])))
    assert renormalised(kind(np.log([unfit])), limit=0.1).shape == (1, 2)
    assert 0.04 < RENORMALISE_LIMIT < 0.08


def test_no_limit_makes_a_law_of_nothing():
    nothing = np.full((2, 3), -INF)
    with pytest.raises(InvalidDistributionError, match="misses 1 of its mass"):
        renormalised(nothing, limit=1.0)


def test_no_rows_are_no_trouble():
    assert renormalised(np.zeros((0, 2))).shape == (0, 2)
    assert completed(np.zeros((0, 2)), np.log([0.5, 0.5])).shape == (0, 2)


# ------------------------------------------------------------------- arguments


@libraries
def test_skipping_the_checks_changes_no_result_and_asks_nothing_of_the_data(kind):
    theta, budget = kind(np.array([0.0, 0.4, 1.0])), kind(np.array([0.1, 0.1, 9.0]))
    nu, mu = kind(np.log([[0.5, 0.2], [0.5, 0.5]])), kind(np.log([0.25, 0.75]))
    for call in (
        lambda **how: acting_cost_nats(theta, **how),
        lambda **how: may_act(theta, budget, **how),
        lambda **how: completed(nu, mu, **how),
    ):
        np.testing.assert_array_equal(np.asarray(call(unchecked=True)), np.asarray(call()))
    assert not np.asarray(may_act(theta, -budget, unchecked=True))[1:].any()


@pytest.mark.parametrize("theta", [-1e-9, 1.0000001, math.nan])
def test_missing_mass_is_a_probability(theta):
    for call in (acting_cost_nats, lambda t: may_act(t, np.array([1.0]))):
        with pytest.raises(InvalidDistributionError, match=r"missing_mass must lie in \[0, 1\]"):
            call(np.array([theta]))


def test_budgets_are_numbers_from_0_of_the_same_library():
    with pytest.raises(InvalidBudgetError, match="remaining_nats must be >= 0, got -1"):
        may_act(np.array([0.5]), np.array([-1.0]))
    with pytest.raises(InvalidArgumentError, match="from one library"):
        may_act(np.array([0.5]), torch.tensor([1.0]))
    with pytest.raises(InvalidDistributionError, match=r"limit must lie in \[0, 1\], got 2"):
        renormalised(np.log([0.5, 0.5]), limit=2)


def test_help_is_named_in_files_and_options():
    assert {way.value for way in Help} == {"ask", "demonstrator", "stop", "renormalise"}
