"""The problem's tables, the soft policy and its relatives, against plain recursions."""

import math
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_world.planning_problems import problems, random_problem
from theory.constraints import adaptive_kl_nats, expected_kl_nats
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
)
from theory.process import HistoryTree, action_law, values
from toy_world.planners.problem import (
    Reading,
    check_budget,
    check_full_rows,
    check_tables,
    kl_of_log_ratio,
    least_kl_policy,
    mix_policies,
    observation_prefixes,
    optimal_actions,
    planning_problem,
    soft_maximum,
)

ROWS = st.sampled_from(
    [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.25, 0.0, 0.5], [1e-300, 0.5, 0.5], [1e-9, 0.0, 1e-9]]
)
"""Of a base policy; some miss mass, none misses all."""


def exact_soft_maximum(row, gains, price):
    """`y ln sum_a beta(a) exp(G(a)/y)` and its maximiser in fifty digits."""
    weights = [
        mpmath.mpf(p) * mpmath.exp(mpmath.mpf(g) / mpmath.mpf(price))
        for p, g in zip(row, gains, strict=True)
    ]
    total = mpmath.fsum(weights)
    return mpmath.mpf(price) * mpmath.log(total), [w / total for w in weights]


@given(
    row=ROWS,
    gains=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    log_price=st.floats(-7, 7),
)
def test_the_soft_maximum_is_the_logarithm_that_it_says_and_no_other_policy_has_more(
    row, gains, log_price
):
    price = 10.0**log_price
    beta = np.array([row])
    barred = np.where(beta > 0, 0.0, -np.inf)
    mass = math.fsum(row)
    missing = np.array([0.0 if mass == 1 else 1 - mass])
    best, pi, log_ratio = soft_maximum(beta, barred, missing, np.array([gains]), price)
    with mpmath.workdps(50):
        exact, maximiser = exact_soft_maximum(row, gains, price)
        assert abs(mpmath.mpf(best[0]) - exact) <= 1e-14 * (1 + price * abs(math.log(mass)))
        for p, exact_p in zip(pi[0], maximiser, strict=True):
            assert abs(p - exact_p) <= 1e-13 * exact_p + 1e-300
        kl = mpmath.fsum(
            p * mpmath.log(p / q) for p, q in zip(maximiser, map(mpmath.mpf, row), strict=True) if p
        )
        found = kl_of_log_ratio(beta, missing, pi, log_ratio)[0]
        assert abs(found - kl) <= 1e-12 * (1 + abs(kl))
        # Any other policy earns less: here, one that takes a single action.
        for gain, p in zip(gains, row, strict=True):
            if p:
                assert gain + mpmath.mpf(price) * mpmath.log(mpmath.mpf(p)) <= exact + 1e-12


@pytest.mark.parametrize("log_ratio", [1e-9, 1e-5, 0.1])
def test_a_small_kl_keeps_its_digits(log_ratio):
    beta = np.array([[0.25, 0.75]])
    with mpmath.workdps(50):
        up = mpmath.mpf(0.25) * mpmath.exp(mpmath.mpf(log_ratio))
        down = mpmath.log((1 - up) / mpmath.mpf(0.75))
        exact = up * mpmath.mpf(log_ratio) + (1 - up) * down
        pi = np.array([[float(up), float(1 - up)]])
        ratios = np.array([[log_ratio, float(down)]])
        found = kl_of_log_ratio(beta, np.zeros(1), pi, ratios)[0]
        assert abs(found - exact) <= 1e-15 * log_ratio, "a sum of logarithms would lose 1e-16"


def deterministic_policies(beta):
    """Every policy that takes one action of beta's at each history."""
    choices = [np.flatnonzero(row) for level in beta for row in level]
    sizes = np.cumsum([len(level) for level in beta])[:-1]
    for choice in product(*choices):
        yield tuple(np.split(np.eye(beta[0].shape[1])[list(choice)], sizes))


@settings(max_examples=30)
@given(problem=problems(max_horizon=2))
def test_optimal_actions_reach_the_greatest_value_and_others_lose(problem):
    beta, nu, utility = problem
    prepared = planning_problem(*problem, reading=Reading.EXPECTED)
    allowed, greatest = optimal_actions(prepared)
    all_values = [(pi, float(values(pi, nu, utility)[0][0])) for pi in deterministic_policies(beta)]
    assert greatest == pytest.approx(max(value for _, value in all_values), abs=1e-14)
    for pi, value in all_values:
        if all((bars[rows == 1] == 0).all() for bars, rows in zip(allowed, pi, strict=True)):
            assert value == pytest.approx(greatest, abs=1e-13)
        assert value <= greatest + 1e-13


def test_a_row_of_small_kl_keeps_its_digits_beside_one_of_a_huge_ratio():
    """Against `sum_a beta (r e^r - e^r + 1)` in fifty digits; both rows in one call."""
    small = 1e-9
    beta = np.array([[1e-80, 1 - 1e-80], [0.5, 0.5]])
    log_ratio = np.array(
        [[math.log(0.5e80), math.log(0.5)], [small, math.log1p(-math.expm1(small))]]
    )
    found = kl_of_log_ratio(beta, np.zeros(2), beta * np.exp(log_ratio), log_ratio)
    for row, ratios, kl in zip(beta, log_ratio, found, strict=True):
        terms = [
            mpmath.mpf(b) * (mpmath.mpf(r) * mpmath.exp(r) - mpmath.expm1(r))
            for b, r in zip(row.tolist(), ratios.tolist(), strict=True)
        ]
        assert kl == pytest.approx(float(mpmath.fsum(terms)), rel=1e-6)


@given(problem=problems(max_horizon=2))
def test_where_the_world_never_leads_every_action_of_the_base_is_optimal(problem):
    beta, nu, _ = problem
    allowed, _ = optimal_actions(planning_problem(*problem, reading=Reading.EXPECTED))
    reached = np.ones(1)
    for t, (rows, actions) in enumerate(zip(beta, allowed, strict=True)):
        never = reached == 0
        np.testing.assert_array_equal(actions[never] == 0, rows[never] > 0)
        reached = (reached[:, None, None] * nu[t]).reshape(-1)


def test_at_the_impossible_even_what_earns_nothing_is_optimal():
    """Observation 1 never comes; after it the second action would decide, if anything did."""
    beta = (np.full((1, 2), 0.5), np.full((4, 2), 0.5))
    sure = np.array([1.0, 0.0])
    nu = (np.tile(sure, (1, 2, 1)), np.tile(sure, (4, 2, 1)))
    utility = np.tile([1.0, 1.0, 0.0, 0.0], 4)
    allowed, value = optimal_actions(planning_problem(beta, nu, utility, reading=Reading.EXPECTED))
    assert value == 1
    np.testing.assert_array_equal(allowed[1] == 0, [[1, 0], [1, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize("reading", [Reading.EXPECTED, Reading.ADAPTIVE])
@settings(max_examples=25)
@given(problem=problems(full_beta=False, positive=True, max_horizon=2), seed=st.integers(0, 99))
def test_no_policy_has_less_kl_than_the_policy_of_least_kl(reading, problem, seed):
    beta, nu, _ = problem
    prepared = planning_problem(*problem, reading=reading)
    pi, least = least_kl_policy(prepared, allowed=prepared.barred, reading=reading)
    rng = np.random.default_rng(seed)

    def kl(policy):
        if reading is Reading.EXPECTED:
            return float(expected_kl_nats(policy, beta, nu))
        return float(adaptive_kl_nats(policy, beta))

    assert kl(pi) == pytest.approx(least, abs=1e-13)
    for share in (0.01, 0.5):
        other = tuple(
            (1 - share) * rows + share * rng.dirichlet(np.ones(rows.shape[1]), size=len(rows))
            for rows in pi
        )
        assert kl(other) >= least - 1e-13


@settings(max_examples=25)
@given(problem=problems(), other=problems(), share=st.floats(0, 1))
def test_a_mixture_s_action_sequences_are_the_mean_of_its_parts(problem, other, share):
    first, nu, _ = problem
    second = other[0]
    if [level.shape for level in first] != [level.shape for level in second]:
        second = tuple(np.roll(level, 1, axis=1) for level in first)
    n_observations = nu[0].shape[2]
    mixed = mix_policies(first, second, share, n_observations=n_observations)
    laws = [action_law(pi, n_observations=n_observations) for pi in (mixed, first, second)]
    np.testing.assert_allclose(laws[0], (1 - share) * laws[1] + share * laws[2], atol=1e-14)
    for level in mixed:
        np.testing.assert_allclose(level.sum(axis=1), 1, atol=1e-14)


def test_decisions_are_mixed_by_the_actions_that_come_of_them(rng):
    """Two decisions that both mean action 0 leave the later histories alike."""
    first = (np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]] * 2))
    second = (np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]] * 2))

    def law(_, decisions):  # the third decision acts as the first
        return decisions[:, :2] + decisions[:, 2:] * np.array([1.0, 0.0])

    mixed = mix_policies(first, second, 0.25, n_observations=1, law=law)
    np.testing.assert_allclose(mixed[0], [[0.75, 0.0, 0.25]])
    np.testing.assert_allclose(mixed[1][0], [0.75, 0.25, 0.0])


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 3), (3, 2, 2)])
def test_prefixes_number_the_observations_of_each_history(shape):
    n_actions, n_observations, horizon = shape
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    found = observation_prefixes(
        n_actions=n_actions, n_observations=n_observations, horizon=horizon
    )
    for t, level in enumerate(found):
        sequences = list(product(range(n_observations), repeat=t))
        expected = [sequences.index(history[1::2]) for history in tree.continuations(t)]
        assert level.tolist() == expected


# Preparing the tables.


def test_dead_ends_are_barred_where_they_can_come():
    """After action 0 and observation 0 beta has no mass; nu makes that observation never."""
    beta = (np.array([[0.9, 0.1]]), np.array([[0.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    nu = (np.array([[[0.0, 1.0], [0.5, 0.5]]]), np.full((4, 2, 2), 0.5))
    utility = np.zeros(16)
    open_ = planning_problem(beta, nu, utility, reading=Reading.EXPECTED)
    np.testing.assert_array_equal(open_.barred[0], [[0.0, 0.0]])
    for reading in (Reading.FIXED, Reading.ADAPTIVE):
        closed = planning_problem(beta, nu, utility, reading=reading)
        np.testing.assert_array_equal(closed.barred[0], [[-np.inf, 0.0]])
        assert closed.missing[0][0] == pytest.approx(0.9)
        np.testing.assert_array_equal(closed.beta[1][0], [0.5, 0.5])


def test_rows_that_are_full_but_for_rounding_are_made_full():
    beta = (np.array([[0.1 + 1e-13, 0.9], [0.25, 0.25]])[:1],)
    nu = (np.ones((1, 2, 1)),)
    prepared = planning_problem(beta, nu, np.array([0.0, 1.0]), reading=Reading.EXPECTED)
    assert prepared.beta[0].sum() == pytest.approx(1, abs=1e-16)
    assert prepared.missing[0][0] == 0
    assert prepared.greatest_utility == 1
    assert prepared.n_observations == 1


def test_a_base_policy_that_always_stops_is_an_error():
    tables = (np.zeros((1, 2)),), (np.ones((1, 2, 1)),), np.array([1.0, 0.0])
    with pytest.raises(InvalidBudgetError, match="every policy has infinite KL"):
        planning_problem(*tables, reading=Reading.EXPECTED)


def test_tables_must_belong_together(rng):
    beta, nu, utility = random_problem(rng)
    with pytest.raises(InvalidShapeError, match="share a horizon, got 2 and 3"):
        check_tables(beta[:2], nu, utility)
    with pytest.raises(InvalidShapeError, match="the 64 complete histories, got shape"):
        check_tables(beta, nu, utility[:-1])
    with pytest.raises(InvalidShapeError, match=r"level 1 of nu must have shape \(4, \|A\|"):
        check_tables((beta[0], beta[2], beta[2]), (nu[0], nu[2], nu[2]), utility)


def test_probabilities_and_utilities_must_be_such(rng):
    beta, nu, utility = random_problem(rng, horizon=1)
    with pytest.raises(InvalidDistributionError, match=r"of beta must sum to at most 1, got 1\.5"):
        check_tables((np.array([[0.5, 1.0]]),), nu, utility)
    with pytest.raises(InvalidDistributionError, match="of nu must be >= 0, got nan"):
        check_tables(beta, (np.full((1, 2, 2), np.nan),), utility)
    with pytest.raises(InvalidArgumentError, match=r"U_m must lie in \[0, 1\], got 1.5"):
        check_tables(beta, nu, np.array([0, 1.5, 0, 0]))


def test_full_rows_miss_nothing_but_rounding():
    check_full_rows((np.array([[0.5, 0.5 - 1e-10]]),), name="beta", reason="of rounding")
    with pytest.raises(
        InvalidDistributionError, match=r"rows of beta must sum to 1, got 0\.75; no"
    ):
        check_full_rows((np.array([[0.5, 0.25]]),), name="beta", reason="no mass may be missing")
    with pytest.raises(InvalidDistributionError, match="of beta must be >= 0, got nan"):
        check_full_rows((np.array([[math.nan, 0.25]]),), name="beta", reason="")


@pytest.mark.parametrize("budget", [-1e-9, math.nan])
def test_a_budget_is_a_number_from_0(budget):
    check_budget(0.0)
    check_budget(math.inf)
    with pytest.raises(InvalidBudgetError, match=f"budget must be >= 0, got {budget}"):
        check_budget(budget, name="budget")
