"""What a budget buys, against exact arithmetic, fifty digits, and brute force over policies."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_experiment.auditing.budgets import binary_kl_nats, budget_for_nats, largest_shares
from theory.bounds import largest_share
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError

prices = st.floats(min_value=1e-6, max_value=600)
budgets = st.floats(min_value=1e-3, max_value=700)


def precise_kl(q, c):
    """`KL(Bern q || Bern exp(-c))` with fifty digits."""
    with mpmath.workdps(50):
        q, p = mpmath.mpf(float(q)), mpmath.exp(-mpmath.mpf(float(c)))
        first = q * mpmath.log(q / p) if q else mpmath.mpf(0)
        rest = (1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else mpmath.mpf(0)
        return first + rest


@given(q=st.floats(min_value=0, max_value=1), c=st.floats(min_value=1e-6, max_value=2000))
def test_the_binary_kl_has_all_its_digits(q, c):
    terms = abs(q * c) + 1
    assert float(binary_kl_nats(q, c)) == pytest.approx(
        float(precise_kl(q, c)), rel=1e-12, abs=4e-16 * terms
    )


@given(c=prices, budget=budgets)
def test_the_largest_share_is_that_of_exact_arithmetic(c, budget):
    # Of a share q, the KL's slope is log(q/p) - log((1-q)/(1-p)); rounding of the KL over it.
    exact = largest_share(float(np.exp(-c)), budget)
    assert float(largest_shares(c, budget)) == pytest.approx(exact.lower, rel=1e-7, abs=1e-15)


@pytest.mark.parametrize(("c", "budget"), [(800.0, 1.0), (2000.0, 50.0), (1e6, 3.0)])
def test_prices_beyond_the_least_float_are_bought_too(c, budget):
    share = float(largest_shares(c, budget))
    assert float(precise_kl(share, c)) == pytest.approx(budget, rel=1e-12)
    assert share < 1.0


def test_a_policy_that_only_rescales_reaches_the_share_and_none_does_better(rng):
    base = rng.dirichlet(np.ones(4))
    c, budget = -np.log(base[0]), 0.3
    share = float(largest_shares(c, budget))
    best = np.array([share, *(1 - share) * base[1:] / base[1:].sum()])
    assert float(kl_nats(np.log(best), np.log(base))) == pytest.approx(budget, rel=1e-9)
    others = rng.dirichlet(np.ones(4), size=20_000)
    within = kl_nats(np.log(others), np.broadcast_to(np.log(base), others.shape)) <= budget
    assert within.sum() > 100
    assert others[within, 0].max() <= share


def test_the_budget_for_a_share_buys_that_share():
    for c in (0.5, 3.0, 40.0, 900.0):
        budget = float(budget_for_nats(0.5, c))
        bought = 0.5 if budget else float(np.exp(-c))
        assert float(largest_shares(c, budget)) == pytest.approx(bought, rel=1e-9)
    assert float(budget_for_nats(0.5, np.log(2.0))) == pytest.approx(0.0, abs=1e-15)


def test_ends_and_what_is_not_known():
    assert largest_shares([0.0, 2.0, 2.0, np.inf], [0.0, 0.0, 2.0, 5.0]).tolist() == [
        1.0, float(np.exp(-2.0)), 1.0, 0.0,
    ]  # fmt: skip
    assert np.isnan(largest_shares(np.nan, 1.0))
    assert np.isnan(budget_for_nats(0.5, np.nan))
    assert np.isinf(budget_for_nats(0.5, np.inf))
    for c, budget, name in ((-1.0, 1.0, "prices"), (1.0, -1.0, "budgets")):
        with pytest.raises(InvalidArgumentError, match=f"{name} must be >= 0 nats, got -1.0"):
            largest_shares(c, budget)
