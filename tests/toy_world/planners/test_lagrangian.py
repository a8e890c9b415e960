"""The optimum under one constraint, on problems whose policies are single numbers."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.errors import InvalidBudgetError
from toy_world.planners.lagrangian import Relaxed, attain_budget

LEAST, GREATEST = 0.3, 1.5
"""The least KL of the square-root problem, and that of its greatest value."""


def square_root_problem(budget, *, least=LEAST):
    """`V = sqrt(k)` for a policy of KL `least + k`, up to `k = 1.2`: all by hand.

    At lambda the best k is `1/(4 lambda^2)`.
    """
    most = GREATEST - LEAST

    def relaxed(multiplier):
        k = min(most, 1 / (4 * multiplier**2))
        return Relaxed(
            policy=k,
            kl_nats=least + k,
            multiplier=multiplier,
            soft_value=math.sqrt(k) - multiplier * (least + k),
        )

    return attain_budget(
        relaxed=relaxed,
        mixed=lambda p, q, share: (1 - share) * p + share * q,
        kl_nats=lambda k: least + k,
        least=Relaxed(policy=0.0, kl_nats=least, multiplier=math.inf, soft_value=math.nan),
        greedy=Relaxed(
            policy=most, kl_nats=least + most, multiplier=0.0, soft_value=math.sqrt(most)
        ),
        budget_nats=budget,
        greatest_utility=math.sqrt(most),
    )


@given(extra=st.floats(1e-6, GREATEST - LEAST - 1e-9))
def test_the_budget_is_spent_and_the_multiplier_is_the_slope_there(extra):
    found = square_root_problem(LEAST + extra)
    assert found.kl_nats == pytest.approx(LEAST + extra, abs=3e-12)
    assert found.policy == pytest.approx(extra, abs=3e-12)
    value = math.sqrt(found.policy)
    multiplier, bound = found.certificate(value=value, budget_nats=LEAST + extra)
    assert multiplier == pytest.approx(1 / (2 * math.sqrt(extra)), rel=1e-5)
    assert found.dearer.multiplier <= found.cheaper.multiplier
    with mpmath.workdps(30):
        assert -1e-13 <= bound - float(mpmath.sqrt(mpmath.mpf(extra))) <= 1e-9


def test_below_the_least_kl_there_is_no_policy():
    with pytest.raises(InvalidBudgetError, match=r"must be at least 0\.3, .*, got 0\.2999"):
        square_root_problem(0.2999)


def test_at_the_least_kl_there_is_one_policy_and_no_slope():
    found = square_root_problem(LEAST)
    assert (found.policy, found.kl_nats) == (0.0, LEAST)
    assert found.certificate(value=0.0, budget_nats=LEAST) == (math.inf, 0.0)


@pytest.mark.parametrize("budget", [GREATEST, 2.0, math.inf])
def test_beyond_the_kl_of_the_greedy_policy_the_constraint_is_slack(budget):
    found = square_root_problem(budget)
    assert found.policy == GREATEST - LEAST
    assert found.certificate(value=found.policy, budget_nats=budget) == (
        0.0,
        math.sqrt(GREATEST - LEAST),
    )


@pytest.mark.parametrize("cost", [0.25, 1.0, 40.0])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_jump_of_the_kl_is_crossed_by_a_mixture_of_the_policies_at_its_ends(cost, share):
    """Buying costs `cost` nats and earns 1: all or nothing at any multiplier but 1/cost."""

    def relaxed(multiplier):
        buys = float(multiplier * cost < 1)
        return Relaxed(
            policy=buys,
            kl_nats=cost * buys,
            multiplier=multiplier,
            soft_value=buys * (1 - multiplier * cost),
        )

    found = attain_budget(
        relaxed=relaxed,
        mixed=lambda p, q, s: (1 - s) * p + s * q,
        kl_nats=lambda p: cost * p,
        least=Relaxed(policy=0.0, kl_nats=0.0, multiplier=math.inf, soft_value=math.nan),
        greedy=Relaxed(policy=1.0, kl_nats=cost, multiplier=0.0, soft_value=1.0),
        budget_nats=share * cost,
        greatest_utility=1.0,
    )
    assert found.policy == pytest.approx(share, rel=1e-12)
    assert found.kl_nats == pytest.approx(share * cost, rel=1e-12)
    multiplier, bound = found.certificate(value=found.policy, budget_nats=share * cost)
    assert multiplier == pytest.approx(1 / cost, rel=1e-9)
    assert bound == pytest.approx(share, abs=1e-12)


def test_a_convex_kl_of_mixtures_is_met_by_the_right_share():
    """Mixing two policies costs less than the mean of their KL: the share is not linear."""

    def kl(p):
        return p**2

    def relaxed(multiplier):
        buys = float(multiplier < 1)
        return Relaxed(
            policy=buys,
            kl_nats=kl(buys),
            multiplier=multiplier,
            soft_value=buys - multiplier * buys,
        )

    found = attain_budget(
        relaxed=relaxed,
        mixed=lambda p, q, s: (1 - s) * p + s * q,
        kl_nats=kl,
        least=Relaxed(policy=0.0, kl_nats=0.0, multiplier=math.inf, soft_value=math.nan),
        greedy=Relaxed(policy=1.0, kl_nats=1.0, multiplier=0.0, soft_value=1.0),
        budget_nats=0.25,
        greatest_utility=1.0,
    )
    assert found.policy == pytest.approx(0.5, abs=1e-12)
    assert np.isclose(found.kl_nats, 0.25, atol=1e-12)
