"""What realised accounting leaks, against brute force, simulation and search."""

import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from tests import exact_divergences as exact
from theory.budget import Accounting, open_ledger
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.overspending import all_in_spending_nats, realized_two_step_supremum
from theory.projections import fixed_kl_mixture

INF = math.inf
PUBLISHED_FLOOR_NATS = 1e-6


def two_step_total(p, q, budget_nats):
    """What two steps spend in expectation, by the rule itself."""
    first = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    left = [max(budget_nats - math.log(ratio), 0) for ratio in (p / q, (1 - p) / (1 - q))]
    return first + p * left[0] + (1 - p) * left[1]


@pytest.mark.parametrize("budget_nats", [1e-6, 0.01, 0.1, 0.5, 0.9, 0.97])
def test_the_overspending_bet_is_within_the_first_budget_and_the_best_of_a_grid(budget_nats):
    best = realized_two_step_supremum(budget_nats)
    p, q = best.probability, math.exp(best.log_base_probability)
    first = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert first == pytest.approx(budget_nats, rel=1e-9)
    assert best.total_nats == pytest.approx(two_step_total(p, q, budget_nats), rel=1e-9)
    # A grid of bets that spend at most the budget, whole and in part.
    totals = []
    for grid_p in np.linspace(0.01, 0.99, 99):
        for spent in (budget_nats, 0.9 * budget_nats, 0.5 * budget_nats):

            def excess(log_q, p=grid_p, spent=spent):
                gap = math.log1p(-p) - math.log1p(-math.exp(log_q))
                return p * (math.log(p) - log_q) + (1 - p) * gap - spent

            log_q = brentq(excess, -700, math.log(grid_p))
            totals.append(two_step_total(grid_p, math.exp(log_q), budget_nats))
    assert max(totals) <= best.total_nats * (1 + 1e-9)
    assert max(totals) >= best.total_nats * (1 - 1e-3)
    assert best.total_nats > 2 * budget_nats


def test_the_overspending_of_small_budgets_is_unbounded_in_ratio():
    for budget_nats in (1e-4, 1e-6, 1e-8):
        total = realized_two_step_supremum(budget_nats).total_nats
        assert total == pytest.approx(math.sqrt(budget_nats / 2), rel=3 * math.sqrt(budget_nats))


@pytest.mark.parametrize("budget_nats", [1.0, 2.5, 10.0])
def test_from_one_nat_on_two_steps_spend_up_to_twice_the_budget(budget_nats):
    assert realized_two_step_supremum(budget_nats).total_nats == 2 * budget_nats
    # Approached by bets of small p: the first spends the budget, and nearly all is left.
    previous = 0.0
    for p in (0.1, 0.05, 0.025):
        q = p * math.exp(-(budget_nats - (1 - p) * math.log1p(-p)) / p)
        total = two_step_total(p, q, budget_nats)
        assert previous < total < 2 * budget_nats
        previous = total
    assert total > 1.9 * budget_nats


def test_overspending_needs_a_positive_finite_budget():
    for bad in (0.0, math.inf):
        with pytest.raises(InvalidBudgetError, match=f"positive and finite, got {bad}"):
            realized_two_step_supremum(bad)
    with pytest.raises(InvalidBudgetError, match=r">= 0, got -1\.0"):
        realized_two_step_supremum(-1.0)


def all_in_by_brute_force(budget, p, horizon, floor):
    """Expected spending by the tree of all outcomes; each bet by bisection in 30 digits."""
    p = mpmath.mpf(p)

    def bet(stake):
        if stake == 0:
            return mpmath.mpf(0), p
        if stake >= -mpmath.log(p):
            return -mpmath.log(p), mpmath.mpf(1)
        low, high = p, mpmath.mpf(1)
        for _ in range(90):
            q = (low + high) / 2
            kl = exact.kl([q, 1 - q], [p, 1 - p])
            low, high = (low, q) if kl > stake else (q, high)
        return stake, low

    def expected(left, steps):
        if steps == 0:
            return mpmath.mpf(0)
        kl, q = bet(left + floor)
        won = expected(max(left - mpmath.log(q / p), mpmath.mpf(0)), steps - 1)
        if q == 1:
            return kl + won
        lost = expected(left - mpmath.log((1 - q) / (1 - p)), steps - 1)
        return kl + q * won + (1 - q) * lost

    with mpmath.workdps(30):
        return float(expected(mpmath.mpf(budget), horizon))


@pytest.mark.parametrize("floor", [0.0, 1e-3])
@pytest.mark.parametrize(("budget", "p"), [(10.0, 0.01), (0.5, 0.2), (0.0, 0.5)])
def test_the_all_in_agent_spends_what_the_tree_of_its_outcomes_says(budget, p, floor):
    found = all_in_spending_nats(budget, token_probability=p, horizon=4, floor_nats=floor)
    assert found == pytest.approx(all_in_by_brute_force(budget, p, 4, floor), rel=1e-11)


def test_with_10_nats_and_a_token_of_1_percent_it_spends_12_from_the_clamp_alone():
    def spending(horizon, floor=0.0):
        return all_in_spending_nats(10, token_probability=0.01, horizon=horizon, floor_nats=floor)

    assert round(spending(16), 1) == round(spending(500), 1) == 12.3
    assert round(spending(16, PUBLISHED_FLOOR_NATS), 1) == 13.6
    assert round(spending(190, PUBLISHED_FLOOR_NATS), 1) == 51.8


def test_simulated_episodes_of_the_all_in_agent_leak_as_much_as_expected(rng):
    n, horizon, p = 4000, 12, 0.05
    base = np.log([p, 1 - p])
    ledger = open_ledger(np.full(n, 2.0), accounting=Accounting.REALIZED)
    for _ in range(horizon):
        bet = fixed_kl_mixture(np.array([0.0, -INF]), base, ledger.remaining_nats)
        token = (rng.uniform(size=n) >= np.exp(bet.log_x[:, 0])).astype(int)
        ratio = bet.log_x[np.arange(n), token] - base[token]
        ledger = ledger.charge(kl_nats=bet.kl_nats, log_ratio_nats=ratio)
    error = 5 * ledger.spent_nats.std() / math.sqrt(n)
    expected = all_in_spending_nats(2.0, token_probability=p, horizon=horizon)
    assert ledger.spent_nats.mean() == pytest.approx(expected, abs=error)
    assert expected > 2.0
    assert ledger.leak_nats.mean() >= ledger.spent_nats.mean() - 2.0


def ledger_total(budget, win, log_p):
    """Expected KL of a bet that moves a token from p to `win`, then all that the ledger allows."""
    log_x = np.log([win, 1 - win])
    log_b = np.array([log_p, math.log1p(-math.exp(log_p))])
    kl = float(kl_nats(log_x, log_b))
    ledger = open_ledger(np.full(2, budget), accounting=Accounting.REALIZED)
    ledger = ledger.charge(kl_nats=kl, log_ratio_nats=log_x - log_b)
    return kl + float(np.exp(log_x) @ ledger.remaining_nats)


def searched_supremum(budget):
    """The largest such total over bets within the budget, by a grid and then Nelder and Mead."""

    def negative(point):
        win, share = 1 / (1 + np.exp(-point))
        low, high = -1e5, math.log(win)  # of log p, for a first bet of share * budget
        for _ in range(60):
            log_p = 0.5 * (low + high)
            other = math.log1p(-win) - math.log1p(-math.exp(log_p))
            kl = win * (math.log(win) - log_p) + (1 - win) * other
            low, high = (log_p, high) if kl > share * budget else (low, log_p)
        return -ledger_total(budget, win, high)

    grid = [np.array([w, 20.0]) for w in range(-8, 7, 2)]
    best = minimize(
        negative,
        min(grid, key=negative),
        method="Nelder-Mead",
        options={"fatol": 1e-4 * budget, "xatol": 1e-2},
    )
    return -best.fun


@pytest.mark.parametrize(("budget", "ratio"), [(0.01, 8.1), (0.1, 3.3)])
def test_below_1_nat_two_steps_can_spend_several_budgets(budget, ratio):
    assert round(searched_supremum(budget) / budget, 1) == ratio


@pytest.mark.parametrize("budget", [1.0, 2.0, 10.0])
def test_from_1_nat_on_two_steps_can_spend_twice_the_budget_and_no_more(budget):
    supremum = searched_supremum(budget)
    assert 1.99 * budget <= supremum <= 2 * budget * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_nats": -1.0}, r"budget_nats must lie in \[0, inf\), got -1"),
        ({"budget_nats": INF}, "budget_nats"),
        ({"floor_nats": math.nan}, r"floor_nats must lie in \[0, inf\), got nan"),
        ({"token_probability": 0.0}, r"token_probability must lie in \(0, 1\), got 0"),
        ({"token_probability": 1.0}, "token_probability"),
        ({"horizon": 0}, "horizon must be >= 1, got 0"),
    ],
)
def test_the_all_in_agents_arguments_are_checked(arguments, message):
    good = {"budget_nats": 1.0, "token_probability": 0.1, "horizon": 3}
    with pytest.raises((InvalidArgumentError, InvalidBudgetError), match=message):
        all_in_spending_nats(**(good | arguments))


@pytest.mark.parametrize("budget", [1e-18, 1e-16, 1e-12, 1e-6, 0.5])
def test_the_supremum_is_right_to_1e9_at_any_budget(budget):
    """At the best p of a golden-section search in 60 digits."""
    with mpmath.workdps(60):
        b = mpmath.mpf(budget)

        def total(p):
            def excess(s):
                q = p * mpmath.exp(-s)
                return p * s + (1 - p) * mpmath.log((1 - p) / (1 - q)) - b

            start = mpmath.sqrt(2 * b * (1 - p) / p)
            s = mpmath.findroot(
                excess, (start / 4, start * 4 + b / p), solver="anderson", tol=1e-90
            )
            return b + p * (s - b)

        low, high = mpmath.mpf("0.05"), mpmath.mpf("0.5")
        golden = (mpmath.sqrt(5) - 1) / 2
        for _ in range(60):
            left, right = high - golden * (high - low), low + golden * (high - low)
            low, high = (left, high) if total(left) < total(right) else (low, right)
        best = total((low + high) / 2)
        found = realized_two_step_supremum(budget)
        assert abs(found.total_nats / best - 1) < 1e-9
